"""The same training with SB3's off-policy algorithms and with ours, and environments for it."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LEARNING_STARTS = 20


def tiny(**further: Any) -> dict[str, Any]:
    """Arguments for the smallest networks and batches with which something is learned from."""
    return {
        "learning_starts": LEARNING_STARTS,
        "batch_size": 16,
        "buffer_size": 2_000,
        "seed": 3,
        "device": "cpu",
        # A new one each time: SB3 changes it.
        "policy_kwargs": {"net_arch": [8, 8]},
        **further,
    }


class Walk(gym.Env):
    """
    Its observations tell the episode and the step, and its rewards depend on both and on the action, so that a
    transition can be recognised wherever it is stored. Episodes are cut off.

    :param episode_length: steps of an episode
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2.0, 4.0, (2,), np.float32)

    def __init__(self, episode_length: int = 7) -> None:
        self.episode_length, self.episode, self.steps = episode_length, -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), 100.0 * self.episode + self.steps, False, self.steps >= self.episode_length, {}

    def n_steps_made(self) -> int:
        """Steps that were made since it was built."""
        return self.episode * self.episode_length + self.steps

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.steps], dtype=np.float32)


class DelayedWalk(Walk):
    """Waits for a random time at every step."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(float(np.random.default_rng().uniform(0, 0.002)))
        return super().step(action)


class Reach(gym.Env):
    """A task with goals: walk to a number. For HER."""

    observation_space = spaces.Dict(
        {name: spaces.Box(-20.0, 20.0, (1,), np.float32) for name in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.position = np.zeros(1, np.float32)
        self.goal = self.np_random.uniform(-3, 3, 1).astype(np.float32)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.position = np.clip(self.position + action, -20, 20).astype(np.float32)
        reward = float(self.compute_reward(self.position, self.goal, {}))
        return self._observe(), reward, reward == 0.0, self.steps >= 10, {}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        return -(np.abs(achieved_goal - desired_goal).max(axis=-1) > 0.5).astype(np.float32)

    def _observe(self) -> dict[str, np.ndarray]:
        return {"observation": self.position, "achieved_goal": self.position, "desired_goal": self.goal}


BUFFER_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def assert_same_buffers(oracle: Any, model: Any, except_for: tuple[str, ...] = ()) -> None:
    """Compare all that was stored."""
    expected, found = oracle.replay_buffer, model.replay_buffer
    assert (expected.pos, expected.full) == (found.pos, found.full)
    for name in BUFFER_ARRAYS:
        if name in except_for or not hasattr(expected, name):
            continue
        some, others = getattr(expected, name), getattr(found, name)
        if isinstance(some, dict):
            assert all(np.array_equal(some[key], others[key]) for key in some), name
        else:
            assert np.array_equal(some, others), name
