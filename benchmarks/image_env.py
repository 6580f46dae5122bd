"""``benchmarks.image_env:Images-v0``: four frames of 84x84 pixels at a time, as Atari's environments show after SB3's
wrappers. There is nothing to learn from them, and nothing is drawn."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

N_IMAGES = 64
EPISODE_STEPS = 500


class ImageEnv(gym.Env):
    """Shows images that were drawn by lot."""

    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(6)

    def __init__(self) -> None:
        self._images = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 84, 84, 4), np.uint8)
        self._n_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._image(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._n_steps += 1
        return self._image(), float(action == 0), False, False, {}

    def _image(self) -> np.ndarray:
        return self._images[self._n_steps % N_IMAGES].copy()


gym.register("Images-v0", f"{__name__}:ImageEnv", max_episode_steps=EPISODE_STEPS)
