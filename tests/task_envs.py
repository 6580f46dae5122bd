"""Environments for tests of what is reported and evaluated; like those in toy_envs.py, they need no torch."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from toy_envs import RandomWalk

from sb3_walle.samplers.monitor import monitored


class Task(RandomWalk):
    """A random walk whose infos say where it is, and at the end of an episode whether it succeeded."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        info["position"] = float(observation[0])
        if terminated or truncated:
            info["is_success"] = not terminated
        return observation, reward, terminated, truncated, info


class TellsOfTorch(Task):
    """The return of an episode, which has one step, says whether its process has imported torch."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, *_, info = super().step(action)
        return observation, float("torch" in sys.modules), True, False, info


class Graded(gym.Env):
    """
    Episodes of one step whose returns are given in advance, so that no evaluation depends on the policy.

    :param returns: return after the first reset, after the second, ...; the last one again and again
    """

    observation_space, action_space = RandomWalk.observation_space, RandomWalk.action_space

    def __init__(self, returns: list[float]) -> None:
        self.returns, self.n_resets = returns, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.n_resets += 1
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = self.returns[min(self.n_resets, len(self.returns)) - 1]
        return np.zeros(2, np.float32), reward, True, False, {}


class Scaled(gym.Wrapper):
    """Around the ``Monitor``, where ``set_attr()`` of a ``VecEnv`` sets things. The reward is what was set."""

    scale = 0

    def __init__(self) -> None:
        super().__init__(monitored(Task()))

    def set_scale(self, scale: int) -> int:
        """Returns what was set before."""
        self.scale, previous = scale, self.scale
        return previous

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, float(self.scale), *rest


class Painter(Scaled):
    """Shows what it was told."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self) -> np.ndarray:
        return np.full((2, 2, 3), self.scale, np.uint8)
