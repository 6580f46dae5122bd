"""Small environments made for tests. Samplers import this file, so it imports no torch, which takes seconds."""

import os
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class StampedEnv(gym.Env):
    """
    Shows its own identity, the number of the episode and the step in it, so that a test can follow every sample.

    :param identity: first element of every observation
    :param episode_length: steps of an episode
    :param truncates: whether episodes end by truncation rather than by termination
    :param max_delay: longest random delay of a step, in seconds
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(
        self, identity: int = 0, episode_length: int = 7, truncates: bool = False, max_delay: float = 0.0
    ) -> None:
        self.identity, self.episode_length, self.truncates = identity, episode_length, truncates
        self.max_delay = max_delay
        self.difficulty = 0
        self.episode, self.steps = -1, 0
        self._delays = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._stamp(), {"options": options}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.max_delay:
            time.sleep(self._delays.uniform(0, self.max_delay))
        self.steps += 1
        over = self.steps == self.episode_length
        reward = float(action) + 10 * self.difficulty
        info = {"stamp": (self.identity, self.episode, self.steps)}
        return self._stamp(), reward, over and not self.truncates, over and self.truncates, info

    def set_difficulty(self, difficulty: int) -> int:
        """Returns the difficulty that was set before."""
        self.difficulty, previous = difficulty, self.difficulty
        return previous

    def _stamp(self) -> np.ndarray:
        return np.array([self.identity, self.episode, self.steps], dtype=np.float64)


class FilmedEnv(StampedEnv):
    """Renders what it shows: an image of three squares, which a video keeps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    render_mode = "rgb_array"
    # By how much one more brightens a square: of the identity, the episode and the step.
    SHADES = (40, 10, 30)

    def render(self) -> np.ndarray:
        image = np.zeros((32, 32, 3), np.uint8)
        for square, value, shade in zip(self.squares(image), self._stamp(), self.SHADES, strict=True):
            square[:] = int(value) * shade
        return image

    def process_id(self) -> int:
        return os.getpid()

    @classmethod
    def stamp_of(cls, image: np.ndarray) -> tuple[int, ...]:
        """The identity, episode and step in an image."""
        squares = cls.squares(image)
        return tuple(round(square.mean() / shade) for square, shade in zip(squares, cls.SHADES, strict=True))

    @staticmethod
    def squares(image: np.ndarray) -> tuple[np.ndarray, ...]:
        return image[:16, :16], image[:16, 16:], image[16:, :16]


class RandomWalk(gym.Env):
    """
    A task whose observations and rewards depend on its random stream and on the actions, but not on its delays.

    :param max_delay: longest delay of a step, in seconds
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, max_delay: float = 0.0) -> None:
        self.max_delay = max_delay
        self._delays = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.normal(size=2).astype(np.float32), 0
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.max_delay:
            time.sleep(self._delays.uniform(0, self.max_delay))
        self.steps += 1
        self.position += action + self.np_random.normal(size=2).astype(np.float32)
        terminated = bool(abs(self.position[0]) > 4)
        return self.position.copy(), -float(np.abs(self.position).sum()), terminated, self.steps >= 20, {}


class DictEnv(gym.Env):
    """Shows a vector, a number and a set of switches."""

    observation_space = spaces.Dict(
        {
            "vector": spaces.Box(-10, 10, (2, 2), np.float32),
            "number": spaces.Discrete(5),
            "switches": spaces.MultiBinary(3),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), float(action.sum()), False, self.steps >= 9, {}

    def _observe(self) -> dict[str, Any]:
        return {
            "vector": self.np_random.uniform(-10, 10, (2, 2)).astype(np.float32),
            "number": int(self.np_random.integers(5)),
            "switches": self.np_random.integers(0, 2, 3).astype(np.int8),
        }


class FailingEnv(StampedEnv):
    """
    Raises in its n-th step.

    :param fails_at: number of the step
    :param identity: as in :class:`StampedEnv`
    """

    def __init__(self, fails_at: int = 5, identity: int = 0) -> None:
        super().__init__(identity)
        self.fails_at, self.n_steps = fails_at, 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        if self.n_steps == self.fails_at:
            raise ArithmeticError(f"the simulation diverged in step {self.n_steps}")
        return super().step(action)


class Locked(StampedEnv):
    """Has an attribute that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def get_lock(self) -> Any:
        return self.lock

    @property
    def broken(self) -> Any:
        raise AttributeError("there is none today")


def locked_env_with_a_limit() -> gym.Env:
    env = gym.wrappers.TimeLimit(Locked(), 100)
    env.of_wrapper = 3  # type: ignore[attr-defined]
    return env


def randomly_stamped_env() -> StampedEnv:
    return StampedEnv(identity=int(np.random.randint(2**31)))


class WaitingEnv(RandomWalk):
    """
    Waits for something in each step, and counts how many of its kind were built.

    :param directory: a file in it stands for each of them
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        (directory / str(time.time_ns())).touch()

    def step(self, action: Any) -> Any:
        time.sleep(0.05)
        return super().step(action)
