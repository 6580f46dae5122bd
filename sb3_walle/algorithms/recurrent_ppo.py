"""RecurrentPPO with asynchronous samplers."""

from functools import partial
from typing import Any

import numpy as np
import torch as th
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.algorithm.collection_request import CollectionRequest
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.rollout import Rollout
from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.advantages import compute_advantages
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.on_policy.recurrent_rollout_buffer import (
    SequenceStarts,
    new_recurrent_rollout_buffer,
    renew_memory,
    states_of_rows,
)
from sb3_walle.on_policy.rollout_buffer import add_rows
from sb3_walle.samplers.actors.choice import ActorKinds
from sb3_walle.samplers.actors.lstm_states import LSTM_STATES
from sb3_walle.samplers.actors.recurrent_numpy_export import check_same_steps, export_recurrent_numpy_actor
from sb3_walle.samplers.actors.recurrent_torch_actor import RecurrentTorchActorSpec
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.sb3_private import last_step


class AsyncRecurrentPPO(AsyncOnPolicyMixin, RecurrentPPO):
    """
    PPO with LSTM policies as in sb3-contrib, with experience from N samplers.

    Takes the arguments of sb3-contrib's ``RecurrentPPO``, and those of :class:`AsyncOnPolicyMixin`. Samplers keep the
    states of the LSTMs, and record them with each step. Its update is eager, and takes nearly all the time: so mode
    ``"sync"`` is the default. In the modes with a policy lag, the states and values of a rollout become those that the
    policy before the update has for the same observations, and it is corrected with them as
    :class:`~sb3_walle.AsyncPPO` is.

    .. code-block:: python

        model = AsyncRecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_samplers=4, envs_per_sampler=2)
        model.learn()

    :raises VectorizedEnvError: if vectorised environments reset some of them while others make a step, so that an LSTM
        would see the last observation of an episode as the first of the next
    """

    policy: RecurrentActorCriticPolicy
    rollout_buffer: SequenceStarts

    supported_modes = ("sync", "pipelined", "free")
    supported_rollouts = ("steps",)
    collects_as = RecurrentPPO

    def _setup_model(self) -> None:
        super()._setup_model()
        self._renew_buffer()

    def _state_shape(self) -> tuple[int, int]:
        """Number of layers of an LSTM, and number of its units. That of the critic has as many."""
        lstm = self.policy.lstm_actor
        return lstm.num_layers, lstm.hidden_size

    def _renew_buffer(self) -> None:
        self.rollout_buffer = new_recurrent_rollout_buffer(self, self._state_shape())
        n_layers, n_units = self._state_shape()
        zeros = th.zeros((n_layers, self.n_envs, n_units), device=self.device)
        self._last_lstm_states = RNNStates((zeros, zeros), (zeros, zeros))  # type: ignore[assignment]

    def _needs_threads(self) -> bool:
        # It goes through each sequence step by step, while samplers wait.
        return True

    def _make_collector(self, request: CollectionRequest) -> Collector:
        if request.env.vec_env.resets_late:
            raise VectorizedEnvError(
                f"{type(self).__name__} cannot act in a vectorised environment that resets some of its environments in "
                "a call in which others make a step, which is what autoreset_mode NEXT_STEP means. Build it with "
                'SAME_STEP: gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="sync", '
                'vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}).'
            )
        return super()._make_collector(request)

    def _actor_kinds(self) -> ActorKinds:
        torch = partial(RecurrentTorchActorSpec, state_shape=self._state_shape())
        return ActorKinds(torch, export_recurrent_numpy_actor, check_same_steps)

    def _add_rows(
        self,
        buffer: RolloutBuffer,
        rollout: Rollout,
        rows: range,
        rewards: np.ndarray,
        episode_starts: np.ndarray,
        values: np.ndarray,
    ) -> None:
        source = slice(rows.start, rows.stop)
        further = {name: rollout.fields[name][source].swapaxes(1, 2) for name in LSTM_STATES}
        further["state_resets"] = rollout.episode_starts[source]
        add_rows(buffer, rollout, rows, rewards, episode_starts, values, further)

    def _correct_for_policy_lag(self) -> float | None:
        buffer = self.rollout_buffer
        # A buffer that was trained on before is flattened, and was prepared then.
        if buffer.generator_ready:
            return None
        states, (observations, starts) = renew_memory(buffer, self.policy), last_step(self)
        # A callback may have set other environments.
        if observations is not None:
            compute_advantages(buffer, self._last_values(observations, states, starts), starts)
        return correct_for_policy_lag(buffer, self.policy, self.normalize_advantage, self._memory_of_rows)

    def _last_values(self, observations: Any, states: RNNStates, starts: np.ndarray) -> th.Tensor:
        """Values of what the last row of a rollout led to, ``[n_envs, 1]``."""
        tensors, (hidden, cell) = obs_as_tensor(observations, self.device), states.vf
        episode_starts = th.as_tensor(starts, dtype=th.float32, device=self.device)
        with th.no_grad():
            return self.policy.predict_values(tensors, (hidden, cell), episode_starts)  # type: ignore[arg-type]

    def _memory_of_rows(self, rows: range) -> dict[str, Any]:
        buffer, device = self.rollout_buffer, self.device
        resets = buffer.state_resets[rows.start : rows.stop].reshape(-1)
        return {
            "lstm_states": states_of_rows(buffer, rows, device),
            "episode_starts": th.as_tensor(resets, device=device),
        }
