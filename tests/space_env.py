"""An environment of any spaces."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class SpaceEnv(gym.Env):
    """
    A task whose observations, rewards and ends depend on its random stream and on the actions.

    Episodes end both by termination and by truncation. Every info tells which action the environment was given.

    :param observation_space: what to observe: any space that SB3's PPO takes
    :param action_space: what to be told to do
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.level, self.steps = self.np_random.normal(), 0
        return self._observe(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.level = 0.5 * self.level + float(np.mean(action)) + 0.2 * self.np_random.normal()
        reward = float(np.cos(self.level)) + 0.1 * self.np_random.normal()
        terminated = bool(self.np_random.random() < 0.2 / (1.0 + np.exp(-self.level)))
        info = {"action": np.array(action), "action_type": type(action)}
        return self._observe(self.observation_space), reward, terminated, self.steps >= 6, info

    def _observe(self, space: spaces.Space) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._observe(subspace) for key, subspace in space.spaces.items()}
        shift = int(abs(10.0 * self.level))
        if isinstance(space, spaces.Discrete):
            return int(self.np_random.integers(space.n) + shift) % int(space.n)
        if isinstance(space, spaces.MultiDiscrete):
            return ((self.np_random.integers(space.nvec) + shift) % space.nvec).astype(space.dtype)
        if isinstance(space, spaces.MultiBinary):
            return ((self.np_random.integers(2, size=space.shape) + shift) % 2).astype(space.dtype)
        assert isinstance(space, spaces.Box)
        share = self.np_random.random(space.shape) / (1.0 + np.exp(-self.level))
        low = np.where(space.bounded_below, space.low, -9.0).astype(np.float64)
        high = np.where(space.bounded_above, space.high, 9.0).astype(np.float64)
        return (low + share * (high - low)).astype(space.dtype)
