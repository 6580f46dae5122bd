"""An environment that writes down what it is given, for others to read while it runs and after it is dead."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

CLOSED = "closed"


class Entry(NamedTuple):
    """What a plant was given, when, and by which process."""

    time: float
    pid: int
    what: str


class LoggedPlant(gym.Env):
    """
    :param path: the file
    :param close_seconds: how long it takes to close
    :param episode_length: steps of an episode
    """

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, path: str, close_seconds: float = 0.0, episode_length: int = 1_000_000) -> None:
        self._close_seconds, self._episode_length = close_seconds, episode_length
        self._path, self.n_steps = path, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._write(f"{float(action[0]):.3f}")
        self.n_steps += 1
        return np.zeros(1, np.float32), 0.0, False, self.n_steps >= self._episode_length, {}

    def close(self) -> None:
        time.sleep(self._close_seconds)
        self._write(CLOSED)

    def pid(self) -> int:
        """Number of the sampler's process."""
        return os.getpid()

    def server_pid(self) -> int:
        """Number of the process that the sampler was forked from."""
        return os.getppid()

    def _write(self, what: str) -> None:
        with open(self._path, "a") as file:
            # All processes of a machine have the same clock.
            file.write(f"{time.perf_counter()} {os.getpid()} {what}\n")


def entries(path: Path) -> list[Entry]:
    """What was written until now."""
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [Entry(float(moment), int(pid), what) for moment, pid, what in lines]
