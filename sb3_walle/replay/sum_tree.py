"""Sums of many numbers, of which some change at a time."""

from itertools import pairwise

import numpy as np

# Nodes below one node. Textbooks have 2, which makes 20 levels of a million numbers. NumPy takes hardly longer for 16
# numbers than for 2 of them, and 16 make only 5 levels.
FAN_OUT = 16


class SumTree:
    """
    Numbers that are not negative, and a tree of their sums: each node is the sum of up to 32 nodes of the level below.
    All operations take arrays and go through the tree level by level.

    :param size: how many numbers there are, all 0 at first
    """

    def __init__(self, size: int) -> None:
        #: from the numbers to the children of the root: what belongs to one node is a row, ``[n_nodes, FAN_OUT]``
        self._levels: list[np.ndarray] = []
        while not self._levels or size > 1:
            size = -(-size // FAN_OUT)
            self._levels.append(np.zeros((size, FAN_OUT)))

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self._levels[-1].sum())

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """:return: the numbers at some indices, ``[n]``"""
        return self._levels[0].reshape(-1)[indices]

    def __setitem__(self, indices: np.ndarray, values: np.ndarray | float) -> None:
        """
        :param indices: where to replace numbers, ``[n]``
        :param values: what by, ``[n]``, or one number for all of them
        """
        self._levels[0].reshape(-1)[indices] = values
        for below, level in pairwise(self._levels):
            indices = indices // FAN_OUT
            # All of them again: what is added to and taken from a sum leaves its rounding there.
            level.reshape(-1)[indices] = below[indices].sum(axis=1)

    def find(self, sums: np.ndarray) -> np.ndarray:
        """
        Lay all numbers in a row, as lengths, and see which of them lie at some distances from the beginning.

        :param sums: the distances, from 0 to below :attr:`total`, ``[n]``
        :return: indices of the numbers, ``[n]``. None of them is 0, unless all numbers are
        """
        nodes, queries = np.zeros(len(sums), dtype=np.int64), np.arange(len(sums))
        for level in reversed(self._levels):
            # What lies before the first child, and where each of them ends, [n, 1 + FAN_OUT].
            ends = np.zeros((len(sums), 1 + FAN_OUT))
            np.cumsum(level[nodes], axis=1, out=ends[:, 1:])
            # The level above has added them in another order, which rounds to another sum.
            sums = np.minimum(sums, np.nextafter(ends[:, -1], 0.0))
            children = (ends[:, 1:-1] <= sums[:, None]).sum(axis=1)
            sums = sums - ends[queries, children]
            nodes = nodes * FAN_OUT + children
        return nodes
