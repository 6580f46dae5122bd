"""An environment whose observations are large and cost nothing, so that carrying them is all the work."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

EPISODE_STEPS = 200
N_OBSERVATIONS = 4


class WideEnv(gym.Env):
    """
    Shows the same few observations again and again.

    :param n_bytes: of an observation
    """

    def __init__(self, n_bytes: int) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (n_bytes // 4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.observation_space.seed(0)
        self._observations = [self.observation_space.sample() for _ in range(N_OBSERVATIONS)]
        self._n_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._n_steps = 0
        return self._observations[0].copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._n_steps += 1
        observation = self._observations[self._n_steps % N_OBSERVATIONS]
        return observation.copy(), 0.0, False, self._n_steps >= EPISODE_STEPS, {}
