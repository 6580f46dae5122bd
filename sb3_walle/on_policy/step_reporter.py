"""Telling callbacks of the steps that samplers made, as SB3 tells them of the steps that it makes itself."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.info_needs import may_look_at_infos
from sb3_walle.algorithm.wrapper_state import infos_of_step, show_step_to_wrappers
from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.actors.policy_hooks import hooks_on_policy
from sb3_walle.samplers.actors.protocol import LOG_PROBS
from sb3_walle.samplers.actors.torch_policy import staying_hooks
from sb3_walle.samplers.env_actions import env_actions
from sb3_walle.samplers.infos import EPISODE, IS_SUCCESS
from sb3_walle.sb3_private import set_last_episode_starts, set_last_observations, update_info_buffer
from sb3_walle.transport.chunk import between
from sb3_walle.transport.chunk import rows as each_row

# Observations that are on the learner's device at the same time, for the sake of callbacks.
ROWS_AT_ONCE = 128


class StepReporter:
    """
    Calls ``on_step()`` once for every step of all environments, with the local variables of SB3's
    ``collect_rollouts()`` and with the algorithm's own counters at what they would be there. Where rollouts consist of
    whole episodes, not every environment makes a step in every call: ``step_made`` says which do, ``[n_envs]``.

    :param n_rollout_steps: steps of each environment in a rollout
    :param wrapped: the wrappers that are kept up to date with the steps
    :param further_locals: local variables that an algorithm has beyond SB3's, from a rollout and a row of it
    """

    def __init__(
        self,
        algorithm: OnPolicyAlgorithm,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        wrapped: WrappedSamplers,
        further_locals: Callable[[Rollout, int], dict[str, Any]],
    ) -> None:
        self.algorithm, self.callback, self.wrapped = algorithm, callback, wrapped
        self._further_locals = further_locals
        self._looks_at_infos = may_look_at_infos(algorithm, "_update_info_buffer")
        # Hooks on the policy as a whole, which it calls at every step of SB3's collect_rollouts().
        self._watchers = hooks_on_policy(algorithm.policy, staying_hooks(algorithm.policy))
        self._clip = env_actions(algorithm.action_space, algorithm.policy.squash_output, env.num_envs)
        self._constants = {
            "self": algorithm,
            "env": env,
            "callback": callback,
            "rollout_buffer": rollout_buffer,
            "n_rollout_steps": n_rollout_steps,
        }

    def report(self, rollout: Rollout, rows: range, values: np.ndarray) -> bool:
        """
        :param rows: some of its rows, T
        :param values: values of their observations, ``[T, n_envs]``
        :return: False as soon as the callback wants to stop
        """
        for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
            some = range(start, min(start + ROWS_AT_ONCE, rows.stop))
            if not self._report(rollout, some, values[start - rows.start : some.stop - rows.start]):
                return False
        # SB3 counts a step when it is over: the next callback to look is that at the rollout's end.
        self.callback.update_locals({"n_steps": rows.stop})
        return True

    def _report(self, rollout: Rollout, rows: range, values: np.ndarray) -> bool:
        algorithm, callback = self.algorithm, self.callback
        # Computed for all these rows at once, and handed out row by row.
        clipped_actions = self._clip(rollout.actions[rows.start : rows.stop])
        observations = each_row(between(rollout.observations, rows), len(rows))
        obs_tensors = self._obs_tensors(rollout, rows)
        value_tensors = th.from_numpy(values).to(algorithm.device).unsqueeze(-1).unbind()
        log_probs = rollout.fields[LOG_PROBS][rows.start : rows.stop]
        log_prob_tensors = th.from_numpy(log_probs).to(algorithm.device).unbind()
        callback.update_locals(self._constants)
        for index, step in enumerate(rows):
            dones, infos = rollout.dones[step], infos_of_step(rollout, step)
            # Not what the step before led to: where a stream ends, that is another environment's.
            set_last_observations(algorithm, observations[index])
            set_last_episode_starts(algorithm, rollout.episode_starts[step])
            new_obs = rollout.next_observations(step)
            algorithm.num_timesteps += rollout.n_steps_made(step)
            show_step_to_wrappers(self.wrapped, rollout, step, infos)
            for watch in self._watchers:
                outputs = (th.from_numpy(rollout.actions[step]), value_tensors[index], log_prob_tensors[index])
                watch((obs_tensors[index],), outputs)
            callback.update_locals(
                {
                    "n_steps": step,
                    "obs_tensor": obs_tensors[index],
                    "actions": rollout.actions[step],
                    "values": value_tensors[index],
                    "log_probs": log_prob_tensors[index],
                    "clipped_actions": clipped_actions[index],
                    "new_obs": new_obs,
                    "rewards": rollout.rewards[step],
                    "dones": dones,
                    "infos": infos,
                    **({} if rollout.step_made is None else {"step_made": rollout.step_made[step]}),
                    **self._further_locals(rollout, step),
                }
            )
            if not callback.on_step():
                return False
            # SB3's own looks for episodes, of which nothing else can tell.
            if self._looks_at_infos or any(EPISODE in info or IS_SUCCESS in info for _, info in rollout.infos[step]):
                update_info_buffer(algorithm, infos, dones)
        set_last_observations(algorithm, new_obs)
        set_last_episode_starts(algorithm, dones)
        return True

    def _obs_tensors(self, rollout: Rollout, rows: range) -> Sequence[th.Tensor | dict[str, th.Tensor]]:
        tensors = obs_as_tensor(between(rollout.observations, rows), self.algorithm.device)
        if isinstance(tensors, dict):
            columns = [tensor.unbind() for tensor in tensors.values()]
            return [dict(zip(tensors, step, strict=True)) for step in zip(*columns, strict=True)]
        return tensors.unbind()
