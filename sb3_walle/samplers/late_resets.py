"""
Chunks of vectorised environments that reset a row only together with a step of the others.

In such a call one environment begins an episode while others make steps, so that after some calls environments have
made different numbers of steps. A sampler records calls in *blocks*, and this file puts together a chunk from them:
the same number of steps of every environment, in which each leads to what the next row shows.
"""

import numpy as np

from sb3_walle.samplers.vectorized.vectorized_envs import VectorizedEnvs
from sb3_walle.transport.chunk import Chunk


def empty_block(chunk: Chunk) -> Chunk:
    """:return: a chunk of the same layout in memory of its own"""
    return Chunk({name: np.zeros_like(array) for name, array in chunk.arrays.items()})


class MadeSteps:
    """
    The steps of a chunk, as far as they were made.

    Steps that an environment makes when it has enough are left out: they would belong to the next chunk, but were
    chosen by the policy of this one. What the environment shows after them is then marked as if an episode began,
    because it is no continuation of what was recorded.

    :param envs: the environments, whose calls are about to be recorded
    :param chunk: the chunk to fill
    :param n_steps: how many steps of each environment to record, T
    """

    def __init__(self, envs: VectorizedEnvs, chunk: Chunk, n_steps: int) -> None:
        self._envs, self._chunk, self._n_wanted = envs, chunk, n_steps
        self._n_made = np.zeros(envs.n_envs, dtype=np.int64)

    @property
    def n_complete(self) -> int:
        """Of how many steps every environment has shown what they led to."""
        # After the last step of an episode, the call that resets shows that.
        return max(0, min(int((self._n_made - self._envs.awaits_reset).min()), self._n_wanted))

    @property
    def n_missing(self) -> int:
        """How many further calls complete the chunk, if no episode ends in the meantime."""
        return self._n_wanted - min(int((self._n_made - self._envs.awaits_reset).min()), self._n_wanted)

    def begin_block(self) -> None:
        """Note how the environments stand before the calls of a block."""
        self._awaited, self._started_anew = self._envs.awaits_reset.copy(), self._envs.starts_anew.copy()

    def take(self, block: Chunk, n_calls: int) -> np.ndarray:
        """
        Copy the steps that were made in a block.

        :param n_calls: number of calls
        :return: for each call, the row of the chunk that each environment's step has, ``[n_calls, B]``; -1 where the
            call made none, or more than enough
        """
        # Whether what an environment shows is not the last observation of an episode: of calls, the next one steps it.
        goes_on = np.concatenate([~self._awaited[np.newaxis], ~block.dones[:n_calls]])
        block.episode_starts[: n_calls + 1] = np.concatenate([self._started_anew[np.newaxis], ~goes_on[:-1]])
        row = self._n_made + np.cumsum(goes_on, axis=0) - goes_on
        self._copy(block, goes_on & (row <= self._n_wanted), row, self._chunk.capacity + 1)
        is_step = goes_on[:-1] & (row[:-1] < self._n_wanted)
        self._copy(block, is_step, row[:-1], self._chunk.capacity)
        self._n_made += goes_on[:-1].sum(axis=0)
        return np.where(is_step, row[:-1], -1)

    def finish(self, block: Chunk) -> None:
        """
        Copy what is not about single steps, and mark environments that have made more steps than are recorded.

        :param block: the last block
        """
        rows_of_steps = self._chunk.rows_of_steps()
        for name, array in self._chunk.arrays.items():
            if name not in rows_of_steps:
                array[...] = block.arrays[name]
        self._envs.starts_anew |= self._n_made > self.n_complete

    def _copy(self, block: Chunk, chosen: np.ndarray, row: np.ndarray, length: int) -> None:
        """
        :param chosen: which steps to copy, ``[n, B]``
        :param row: where each belongs
        :param length: of the arrays to copy: those with a row a step, or those with one more
        """
        calls, envs = np.nonzero(chosen)
        rows = row[calls, envs]
        for name, array in self._chunk.rows_of_steps().items():
            if len(array) == length:
                array[rows, envs] = block.arrays[name][calls, envs]
