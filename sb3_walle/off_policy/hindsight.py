"""Rewards of goals that were chosen in hindsight, for HER: computed in the learner's process."""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.off_policy.facade import Facade
from sb3_walle.vec_env import SamplerVecEnv

COMPUTE_REWARD = "compute_reward"


class LearnersRewards(Facade):
    """
    Environments whose ``compute_reward()`` is called in this process, on one environment that is built for that. Those
    in samplers would answer only when they are done with what they are collecting.

    :param venv: environments in samplers, whatever is around them
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._env: gym.Env | None = None

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """
        :param method_name: name of a method
        :param method_args: its arguments
        :param indices: which environments
        :param method_kwargs: its keyword arguments
        :return: what it returns in each of them
        """
        if method_name != COMPUTE_REWARD:
            return self.venv.env_method(method_name, *method_args, indices=indices, **method_kwargs)
        compute_reward = self._own_env().get_wrapper_attr(COMPUTE_REWARD)
        n_envs = len(list(indices)) if isinstance(indices, Iterable) else 1
        return [compute_reward(*method_args, **method_kwargs) for _ in range(n_envs)]

    def close_own(self) -> None:
        """Close this process's own environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _own_env(self) -> gym.Env:
        if self._env is None:
            samplers = self.venv.unwrapped
            assert isinstance(samplers, SamplerVecEnv)
            self._env = samplers.build_env()
        return self._env


def with_learners_rewards(env: VecEnv) -> VecEnv:
    """
    :param env: environments
    :return: the same, or what computes rewards in this process if they are in samplers
    """
    return LearnersRewards(env) if isinstance(env.unwrapped, SamplerVecEnv) else env
