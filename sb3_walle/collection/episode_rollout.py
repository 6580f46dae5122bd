"""The chunks of one training iteration that collects whole episodes, put together."""

from collections.abc import Sequence

import numpy as np

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.rollout import EPISODE_STARTS, Rollout
from sb3_walle.samplers.infos import TRUNCATED


class EpisodeRollout(Rollout):
    """
    Whole episodes, twice: with a column for each sampler, as callbacks are shown them, and one after the other in a
    single column, as they are learned from. An advantage estimate stops where an episode begins, so that in a single
    column it is that of each episode by itself.

    The columns of samplers have different lengths. In the rows after its last step, a sampler shows where its
    environment has stayed, with no reward and no action.

    :param chunks: those of each sampler, in the order in which it collected them; none if it was dealt no episode. Each
        sampler has one environment. The lists are emptied, so that nothing is kept three times
    """

    def __init__(self, chunks: Sequence[list[Arrival]]) -> None:
        lengths = np.array([sum(arrival.chunk.n_steps for arrival in own) for own in chunks])
        like = next(own[0].chunk for own in chunks if own)
        super().__init__(int(lengths.max()), len(chunks), like)
        self.step_made: np.ndarray = np.arange(self.n_steps)[:, None] < lengths
        #: all steps, those of the first sampler first
        self.column = Rollout(int(lengths.sum()), 1, like)
        first = 0
        for sampler, own in enumerate(chunks):
            step = 0
            for arrival in own:
                chunk, is_continuation = arrival.chunk, step > 0
                rows = range(chunk.n_steps)
                self.paste(chunk, arrival.infos, rows, step, sampler, is_continuation)
                self.column.paste(chunk, arrival.infos, rows, first + step, 0, is_continuation)
                step += chunk.n_steps
            if own:
                self._stay(sampler, step, own[-1])
            own.clear()
            first += step

    @property
    def episode_lengths(self) -> np.ndarray:
        """How many steps each episode has, ``[n_episodes]``; one that was lost with its sampler as far as it came."""
        return np.diff(self._ends, prepend=-1)

    @property
    def longest_truncated(self) -> int:
        """How many steps the longest of the episodes has that a time limit has ended; 0 if there is none."""
        infos = [self.column.infos[end] for end in self._ends]
        is_truncated = [any(info.get(TRUNCATED) for _, info in of_end) for of_end in infos]
        return int((self.episode_lengths * is_truncated).max())

    @property
    def _ends(self) -> np.ndarray:
        """Rows of the single column in which an episode ends."""
        return np.flatnonzero(self.column.dones[:, 0] | self.column.stream_ends[:, 0])

    def learned(self, rows: range) -> tuple[Rollout, range]:
        return self.column, range(self.column.n_steps)

    def shown(self, array: np.ndarray) -> np.ndarray:
        shown = np.zeros(self.step_made.shape, array.dtype)
        shown.T[self.step_made.T] = array[:, 0]
        return shown

    def _stay(self, sampler: int, step: int, last: Arrival) -> None:
        """Fill the rows of a column from some row on."""
        for name in self._names_of_next:
            self.fields[name][step:, sampler] = last.chunk.arrays[name][last.chunk.n_steps, 0]
        self.fields[EPISODE_STARTS][step:, sampler] = True
