"""Rewards of goals that were chosen in hindsight, for HER: computed in the learner's process."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.off_policy.passive_wrapper import PassiveWrapper
from sb3_walle.samplers.sampler import Sampler
from sb3_walle.samplers.succession import other_seed
from sb3_walle.updates.global_state import random_states_kept

COMPUTE_REWARD = "compute_reward"


class LearnersRewards(PassiveWrapper):
    """
    Environments whose ``compute_reward()`` is called in this process, on one environment that is built for that. Those
    in samplers would answer only when they are done with what they are collecting. That environment is like the first
    one in samplers: it begins with a reset, and what is set in the first one is set in it.

    :param are_plants: whether a reset may move a robot, so that there is none
    """

    def __init__(self, venv: VecEnv, samplers: SamplerVecEnv, are_plants: bool) -> None:
        super().__init__(venv)
        self._samplers, self._are_plants = samplers, are_plants
        self._own: Sampler | None = None
        self._n_set = 0

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        if method_name != COMPUTE_REWARD:
            return self.venv.env_method(method_name, *method_args, indices=indices, **method_kwargs)
        n_envs = len(list(indices)) if isinstance(indices, Iterable) else 1
        return self._own_sampler().envs.env_method(COMPUTE_REWARD, method_args, method_kwargs, [0] * n_envs)

    def close_own(self) -> None:
        """Close this process's own environment."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _own_sampler(self) -> Sampler:
        samplers, is_new = self._samplers, self._own is None
        if self._own is None:
            with _random_states_kept():
                own = Sampler(0)
                own.build_envs([samplers.build_env])
                self._own, self._n_set = own, 0
        if samplers.first_setters.n_noted > self._n_set:
            for request in samplers.first_setters.since(self._n_set):
                request.run(self._own)
            self._n_set = samplers.first_setters.n_noted
        if is_new and not self._are_plants:
            seed = samplers.first_seed
            with _random_states_kept():
                self._own.envs.reset([None if seed is None else other_seed(seed, 0)], [{}])
        return self._own


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """An environment may draw from the process's random streams, of which training needs the next numbers."""
    state = random.getstate()
    try:
        with random_states_kept(th.device("cpu")):
            yield
    finally:
        random.setstate(state)


def compute_rewards_here(buffer: ReplayBuffer | None, env: VecEnv | None, are_plants: bool) -> None:
    """
    Have the rewards of a ``HerReplayBuffer`` computed in this process, if its environments are in samplers.

    :param are_plants: whether the mode is ``"realtime"``
    """
    close_rewards(buffer)
    if isinstance(buffer, HerReplayBuffer) and env is not None:
        samplers = env.unwrapped
        buffer.env = LearnersRewards(env, samplers, are_plants) if isinstance(samplers, SamplerVecEnv) else env


def close_rewards(buffer: ReplayBuffer | None) -> None:
    """Close the environment that a ``HerReplayBuffer`` computes rewards with."""
    rewards = getattr(buffer, "env", None)
    if isinstance(rewards, LearnersRewards):
        rewards.close_own()
