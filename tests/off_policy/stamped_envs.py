"""Environments whose observations tell which of them made a step, and when. Samplers import no torch with them."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Stamped(gym.Env):
    """
    Shows which environment it is, the number of the episode, and the step in it. Its reward is always 1.

    :param identity: which environment it is
    :param length: steps of an episode
    :param delay: how long a step takes, in seconds
    """

    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, identity: int, length: int, delay: float) -> None:
        self.identity, self.length, self.delay, self.episode = identity, length, delay, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.delay)
        self.steps += 1
        return self._observe(), 1.0, self.steps == self.length, False, {}

    def _observe(self) -> Any:
        return np.array([self.identity, self.episode, self.steps], np.float32)


class StampedGoal(Stamped):
    """The same with a goal: a number of steps."""

    observation_space = spaces.Dict(
        {
            "observation": Stamped.observation_space,
            "achieved_goal": spaces.Box(-np.inf, np.inf, (1,), np.float32),
            "desired_goal": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
    )

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        return (achieved_goal == desired_goal).all(axis=-1).astype(np.float32)

    def _observe(self) -> Any:
        steps, goal = (np.array([number], np.float32) for number in (self.steps, self.length))
        return {"observation": super()._observe(), "achieved_goal": steps, "desired_goal": goal}


class Faint(Stamped):
    """Shows next to nothing, so that a critic learns one value soon: with a discount factor of 0.8, 5."""

    def _observe(self) -> np.ndarray:
        return np.array([self.identity, self.steps, 0], np.float32) / 200
