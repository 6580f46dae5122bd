"""An environment whose every observation says which sample it is. Samplers import this file: it needs no torch."""

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

IDENTITY, LIFE, EPISODE, STEP, CHECKSUM = range(5)
EPISODE_LENGTH = 7


class StampedTask(gym.Env):
    """
    Shows its identity, a number that no other environment has had in this place (its life), the number of the episode,
    the step in it, and a checksum, again and again over the width of the observation.

    :param width: how often
    """

    action_space = spaces.Discrete(2)

    def __init__(self, width: int = 1) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (width, 5), np.float64)
        self.width = width
        self.life = int.from_bytes(os.urandom(4), "little")
        self.identity, self.episode, self.steps = os.getpid(), -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._stamp(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._stamp(), float(self.steps), False, self.steps == EPISODE_LENGTH, {}

    def action_masks(self) -> list[bool]:
        """One of the two actions is invalid in every other step."""
        return [self.steps % 2 == 0, True]

    def _stamp(self) -> np.ndarray:
        words = [self.identity, self.life, self.episode, self.steps]
        return np.tile(np.array([*words, checksum(*words)], np.float64), (self.width, 1))


def checksum(identity: float, life: float, episode: float, steps: float) -> float:
    return identity * 3 + life * 5 + episode * 7 + steps * 11
