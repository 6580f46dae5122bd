"""The usual way to a cluster: a ``VecEnv`` that makes one remote call for each step of each environment."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class RemoteEnv:
    """
    An actor of Ray with one environment.

    :param make_env: builds it
    """

    def __init__(self, make_env: Callable[[], gym.Env]) -> None:
        self._env = make_env()

    def spaces(self) -> tuple[gym.Space, gym.Space]:
        return self._env.observation_space, self._env.action_space

    def reset(self) -> np.ndarray:
        return self._env.reset()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._env.step(action)
        done = terminated or truncated
        if done:
            info = {**info, "terminal_observation": observation, "TimeLimit.truncated": truncated and not terminated}
            observation, _ = self._env.reset()
        return observation, float(reward), done, info


class RemoteStepVecEnv(VecEnv):
    """
    Environments in actors of Ray, stepped in lockstep.

    :param make_envs: builds one environment each
    """

    def __init__(self, make_envs: Sequence[Callable[[], gym.Env]]) -> None:
        actor: Any = ray.remote(num_cpus=0)(RemoteEnv)
        self._remotes = [actor.remote(make_env) for make_env in make_envs]
        super().__init__(len(make_envs), *ray.get(self._remotes[0].spaces.remote()))

    def reset(self) -> VecEnvObs:
        return np.stack(ray.get([remote.reset.remote() for remote in self._remotes]))

    def step_async(self, actions: np.ndarray) -> None:
        self._steps = [remote.step.remote(action) for remote, action in zip(self._remotes, actions, strict=True)]

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = zip(*ray.get(self._steps), strict=True)
        return np.stack(observations), np.array(rewards), np.array(dones), list(infos)

    def close(self) -> None:
        for remote in self._remotes:
            ray.kill(remote)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
