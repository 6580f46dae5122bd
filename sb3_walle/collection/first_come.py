"""Placement for on-policy algorithms: what arrives first fills the columns, and streams end where it changes."""

from collections import deque
from dataclasses import dataclass

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.placement import Placement
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.statistics import CollectionStatistics


@dataclass
class _Columns:
    """The columns of rollouts that are as wide as one sampler's environments."""

    #: rows of the present rollout that are filled
    filled: int = 0
    #: what would continue the last one of them: a sampler, its ticket, and a row of that chunk
    continued_by: tuple[int, int, int] | None = None


class FirstComePlacement(Placement):
    """
    A sampler's steps fill columns of their own while there is room, and then those that slower samplers have left
    empty, in pieces of any length: the value of the next observation stands in for the steps that are missing where a
    stream ends. What is left of a chunk keeps its slot until the next rollout.
    """

    def __init__(self, n_samplers: int, envs_per_sampler: int, n_steps: int, max_policy_lag: int | None) -> None:
        super().__init__(max_policy_lag)
        self._n_samplers, self._envs_per_sampler, self._n_steps = n_samplers, envs_per_sampler, n_steps
        self.start_run()

    def start_run(self) -> None:
        self.rollout = None
        #: chunks of which the last rollout needed a part, and the first row that is left
        self._left_over: deque[tuple[Arrival, int]] = deque()
        self._columns = [_Columns() for _ in range(self._n_samplers)]

    def begin_rollout(self, version: int, statistics: CollectionStatistics) -> None:
        self._version, self._statistics, self.rollout = version, statistics, None
        for columns in self._columns:
            columns.filled = 0
        for _ in range(len(self._left_over)):
            self._place(*self._left_over.popleft())

    @property
    def is_complete(self) -> bool:
        return all(columns.filled == self._n_steps for columns in self._columns)

    def add(self, arrival: Arrival) -> bool:
        return self._place(arrival, 0)

    def _place(self, arrival: Arrival, row: int) -> bool:
        """Put the rows of a chunk where there is room. If there is more of it than room, the rest waits its turn."""
        chunk, sampler = arrival.chunk, arrival.sampler
        if self._is_stale(self._version - arrival.version):
            self._statistics.n_stale_steps += (chunk.n_steps - row) * chunk.n_envs
            arrival.release()
            return False
        self.rollout = self.rollout or Rollout(self._n_steps, self._n_samplers * self._envs_per_sampler, like=chunk)
        while row < chunk.n_steps:
            index = self._columns_for(sampler)
            if index is None:
                self._left_over.append((arrival, row))
                return True
            columns = self._columns[index]
            rows = range(row, min(chunk.n_steps, row + self._n_steps - columns.filled))
            env, follows = index * self._envs_per_sampler, columns.continued_by == (sampler, arrival.ticket, row)
            self.rollout.paste(chunk, arrival.infos, rows, columns.filled, env, is_continuation=follows)
            columns.filled += len(rows)
            next_row = (arrival.ticket, rows.stop) if rows.stop < chunk.n_steps else (arrival.ticket + 1, 0)
            columns.continued_by = (sampler, *next_row)
            self._statistics.add_steps(arrival, len(rows) * chunk.n_envs)
            row = rows.stop
        arrival.release()
        return True

    def _columns_for(self, sampler: int) -> int | None:
        """The sampler's own columns while they have room, then the emptiest ones."""
        if self._columns[sampler].filled < self._n_steps:
            return sampler
        emptiest = min(range(len(self._columns)), key=lambda index: self._columns[index].filled)
        return emptiest if self._columns[emptiest].filled < self._n_steps else None
