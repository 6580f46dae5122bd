"""Environments whose numbers are worth normalising. Samplers import this file, so it imports no torch."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Far(gym.Env):
    """Observes numbers of very different scales, far from zero, and gives large rewards."""

    observation_space = spaces.Box(-np.inf, np.inf, (2, 2), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps, self.position = 0, 0.0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.position += float(action[0])
        reward = 100.0 + 50.0 * self.position + float(self.np_random.normal())
        return self._observe(), reward, bool(self.np_random.random() < 0.03), self.steps >= 25, {}

    def _observe(self) -> Any:
        noise = self.np_random.normal(size=(2, 2))
        return np.array([[1000.0, -3.0], [0.0, 1e-3]]) + noise * np.array([[5.0, 0.1], [300.0, 1e-4]]) + self.position


class FarIntegers(Far):
    """The same in whole numbers."""

    observation_space = spaces.Box(-(10**6), 10**6, (2, 2), np.int32)

    def _observe(self) -> Any:
        return super()._observe().astype(np.int32)


class FarFloats(Far):
    """The same in single precision."""

    observation_space = spaces.Box(-np.inf, np.inf, (2, 2), np.float32)

    def _observe(self) -> Any:
        return super()._observe().astype(np.float32)


class FarDict(Far):
    """The same in two parts, and a part that cannot be normalised."""

    observation_space = spaces.Dict(
        {
            "first": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "second": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "kind": spaces.Discrete(3),
        }
    )

    def _observe(self) -> Any:
        both = super()._observe()
        return {"first": both[0], "second": both[1].astype(np.float32), "kind": self.steps % 3}


class Fixed(Far):
    """Has episodes of 25 steps."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info
