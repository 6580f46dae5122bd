"""What SB3's Monitor tells of episodes, for all rows of a vectorised environment at once."""

import time
from typing import Any

import numpy as np


class EpisodeStatistics:
    """
    Returns and lengths of the present episodes.

    :param n_envs: number of rows, B
    """

    def __init__(self, n_envs: int) -> None:
        self._returns = np.zeros(n_envs)
        # Steps so far, and how many of them were before the present episodes.
        self._n_steps, self._n_before = 0, np.zeros(n_envs, dtype=np.int64)
        self._began = time.time()

    def add(self, rewards: np.ndarray) -> None:
        """
        A step was made in every row.

        :param rewards: ``[B]``
        """
        self._returns += rewards
        self._n_steps += 1

    def restart(self, rows: Any = slice(None)) -> None:
        """New episodes begin in some rows, by default in all."""
        self._returns[rows], self._n_before[rows] = 0.0, self._n_steps

    def episode(self, row: int) -> dict[str, Any]:
        """:return: return, length, and the time since the environments were built, as ``Monitor`` rounds them"""
        return {
            "r": round(float(self._returns[row]), 6),
            "l": self._n_steps - int(self._n_before[row]),
            "t": round(time.time() - self._began, 6),
        }
