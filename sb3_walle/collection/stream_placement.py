"""Placement for off-policy algorithms: the columns of rollouts hold whole streams, as a replay buffer's have to."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.placement import Placement
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.statistics import CollectionStatistics
from sb3_walle.collection.stream_plan import MOST_WAITING, Move, StreamPlan, StreamRules
from sb3_walle.transport.chunk import Chunk


@dataclass(eq=False)
class _Portion:
    """
    A chunk of which something is left.

    :param first: number of its first step in the streams of its environments
    :param arrival: the chunk
    :param n_left: how many of its steps lie in no column yet, summed over environments
    """

    first: int
    arrival: Arrival
    n_left: int

    def rows(self, steps: range) -> range:
        """The rows that hold those of the steps that are in this chunk."""
        n_rows = self.arrival.chunk.n_steps
        return range(max(0, steps.start - self.first), min(n_rows, steps.stop - self.first))

    def keep(self) -> None:
        """Copy the chunk out of its slot: a slot may be as short as a single step, and runs are not."""
        kept = replace(self.arrival, chunk=self.arrival.chunk.copied())
        self.arrival.release()
        self.arrival = kept


class StreamPlacement(Placement):
    """
    Carries out what a :class:`~sb3_walle.collection.stream_plan.StreamPlan` plans. What waits is copied out of the
    experience queue.

    :param max_policy_lag: see :class:`~sb3_walle.collection.placement.Placement`. Where an episode must not be cut, one
        that has begun in a column is completed with steps of any age
    """

    def __init__(
        self,
        n_samplers: int,
        envs_per_sampler: int,
        n_steps: int,
        rules: StreamRules,
        max_policy_lag: int | None = None,
    ) -> None:
        super().__init__(max_policy_lag)
        self._n_samplers, self._envs_per_sampler, self._n_steps = n_samplers, envs_per_sampler, n_steps
        self._rules = rules
        self.start_run()

    def start_run(self) -> None:
        self.rollout = None
        shape = (self._n_samplers, self._envs_per_sampler, self._n_steps)
        self._plan = StreamPlan(*shape, self._rules, steps_get_old=self.max_policy_lag is not None)
        self._portions: list[list[_Portion]] = [[] for _ in range(self._n_samplers)]

    def begin_rollout(self, version: int, statistics: CollectionStatistics) -> None:
        self._version, self._statistics, self.rollout = version, statistics, None
        self._plan.begin_rollout()
        for sampler in range(self._n_samplers):
            self._drop_stale(sampler)
        for move in self._plan.moves():
            self._carry_out(move)

    @property
    def is_complete(self) -> bool:
        return self._plan.is_complete

    def add(self, arrival: Arrival) -> bool:
        chunk, sampler = arrival.chunk, arrival.sampler
        n_steps = chunk.n_steps
        first = self._plan.arrive(sampler, n_steps, _ends(chunk), chunk.episode_starts[0].tolist())
        portion = _Portion(first, arrival, n_steps * chunk.n_envs)
        self._portions[sampler].append(portion)
        self._drop_stale(sampler)
        is_used = portion.n_left > 0
        for move in self._plan.moves_after(sampler):
            self._carry_out(move)
        if portion.n_left > 0:
            portion.keep()
        else:
            arrival.release()
        return is_used

    def n_further_steps(self, sampler: int, learner_waits: bool) -> int:
        # Those of a run, if the learner or a column needs one. Otherwise what the sampler collects would only get old.
        is_needed = self.max_policy_lag is None and (learner_waits or self._plan.is_displaced(sampler))
        return MOST_WAITING * is_needed - self._plan.n_waiting(sampler)

    def _carry_out(self, move: Move) -> None:
        """Copy the steps of a move into the rollout, chunk by chunk."""
        sampler, offset = divmod(move.env, self._envs_per_sampler)
        envs, row, follows = slice(offset, offset + move.n_envs), move.row, move.follows
        for portion in self._portions_with(sampler, move.steps):
            arrival, rows = portion.arrival, portion.rows(move.steps)
            if self.rollout is None:
                n_envs = self._n_samplers * self._envs_per_sampler
                self.rollout = Rollout(self._n_steps, n_envs, like=arrival.chunk)
            self.rollout.paste(arrival.chunk, arrival.infos, rows, row, move.column, follows, envs)
            self._statistics.add_steps(arrival, len(rows) * move.n_envs)
            self._use_up(portion, len(rows) * move.n_envs)
            row, follows = row + len(rows), True

    def _portions_with(self, sampler: int, steps: range) -> Sequence[_Portion]:
        """The chunks that hold steps, in their order."""
        portions = self._portions[sampler]
        if len(portions) == 1:
            return tuple(portions)
        firsts = [portion.first for portion in portions]
        return portions[bisect_right(firsts, steps.start) - 1 : bisect_right(firsts, steps.stop - 1)]

    def _use_up(self, portion: _Portion, n_env_steps: int) -> None:
        portion.n_left -= n_env_steps
        if portion.n_left == 0:
            self._portions[portion.arrival.sampler].remove(portion)

    def _drop_stale(self, sampler: int) -> None:
        """Drop steps whose policy is too old, as far as streams allow."""
        if self.max_policy_lag is None:
            return
        portions = self._portions[sampler]
        stale = [portion for portion in portions if self._is_stale(self._version - portion.arrival.version)]
        if not stale:
            return
        end = stale[-1].first + stale[-1].arrival.chunk.n_steps
        for _, steps in self._plan.drop_before(sampler, end):
            self._statistics.n_stale_steps += len(steps)
            for portion in self._portions_with(sampler, steps):
                self._use_up(portion, len(portion.rows(steps)))


def _ends(chunk: Chunk) -> list[list[int]]:
    """For each environment, the steps of a chunk with which an episode ended."""
    dones = chunk.dones[: chunk.n_steps]
    if not dones.any():
        return [[] for _ in range(chunk.n_envs)]
    return [np.flatnonzero(dones_of_env).tolist() for dones_of_env in dones.T]
