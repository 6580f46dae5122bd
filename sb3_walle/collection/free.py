"""Mode "free": first come, first served."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.collector import Collector, ReadyChunk, warm_up_lengths
from sb3_walle.collection.queues import Capacity
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.protocol import ActorSpec

# What a sampler has not delivered when its policy gets too old may be lost: about one chunk out of these.
MIN_CHUNKS = 8
# How many rollouts samplers may be ahead if their policy may be of any age.
N_ROLLOUTS_WITHOUT_BOUND = 2


@dataclass
class Lane:
    """
    The columns of rollouts that are as wide as one sampler's environments.

    :param filled: rows of the present rollout that are filled
    :param sampler: sampler that the last of them came from
    :param ticket: ticket that they came with
    :param next_row: row of that chunk that would come next; 0 of the next chunk if that one was used up
    """

    filled: int = 0
    sampler: int = -1
    ticket: int = -1
    next_row: int = -1

    def is_continued_by(self, sampler: int, ticket: int, row: int) -> bool:
        """
        :param sampler: a sampler
        :param ticket: number of one of its tickets
        :param row: a row of that chunk
        :return: whether that row directly follows the last one in the lane
        """
        return (self.sampler, self.ticket, self.next_row) == (sampler, ticket, row)

    def fill(self, sampler: int, ticket: int, rows: range, chunk_steps: int) -> None:
        """
        Note what was put below the last row.

        :param sampler: a sampler
        :param ticket: number of one of its tickets
        :param rows: rows of that chunk
        :param chunk_steps: number of all its rows
        """
        used_up = rows.stop == chunk_steps
        self.filled += len(rows)
        self.sampler = sampler
        self.ticket, self.next_row = (ticket + 1, 0) if used_up else (ticket, rows.stop)


class FreeCollector(Collector):
    """
    A rollout is made of whatever arrives first, so that a slow sampler never holds anyone up. A sampler's steps go to
    columns of their own while there is room, and then to those that slower samplers have left empty.

    A chunk is learned from only while the learner is at most ``max_policy_lag`` versions ahead of it. Three things see
    to that: the experience queue holds no more than that many rollouts; samplers end a chunk early when its policy gets
    too old; and what is too old all the same is dropped and counted. So that a slow sampler has little to lose, its
    chunks are as short as it takes to deliver several of them in every iteration.

    :param max_policy_lag: how many versions the policy may be behind, at least 1; ``None`` for any number, so that only
        the experience queue bounds how far samplers run ahead
    :param samplers: see :class:`Collector`, as for the others
    """

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        max_policy_lag: int | None,
    ) -> None:
        super().__init__(samplers, task, actors, weights, self.capacity(max_policy_lag), overlaps=True)
        self.max_policy_lag = max_policy_lag
        self._forget()

    @staticmethod
    def capacity(max_policy_lag: int | None) -> Capacity:
        """
        :param max_policy_lag: how many versions the policy may be behind, ``None`` for any number
        :return: what that asks of the experience queue
        """
        return Capacity(n_rollouts=max_policy_lag or N_ROLLOUTS_WITHOUT_BOUND, min_chunks=MIN_CHUNKS)

    def start_run(self) -> None:
        """Begin anew: whatever was asked for before is abandoned."""
        super().start_run()
        self._forget()

    def _forget(self) -> None:
        #: chunks of which the last rollout needed a part, or nothing, and the first row that is left
        self._left_over: deque[tuple[ReadyChunk, int]] = deque()
        self._began_at: float | None = None
        longest = self.chunk_steps[0]
        first = warm_up_lengths(self.task.n_steps, longest) if self._has_young_statistics() else []
        #: lengths of the first chunks of each sampler; all later ones are as long as the last of these
        self._first_lengths = [*first, longest]
        self._n_asked = [0] * self.samplers.n_samplers
        self._n_samples_published = 0.0
        self._lanes = [Lane() for _ in range(self.samplers.n_samplers)]

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        self._limit_chunks()
        self._ask()
        rollout = None
        for lane in self._lanes:
            lane.filled = 0
        while any(lane.filled < self.task.n_steps for lane in self._lanes):
            ready, row = self._left_over.popleft() if self._left_over else (self._next_chunk(), 0)
            if self._is_stale(version - ready.seal.version):
                self._drop(ready, row)
                continue
            rollout = rollout or Rollout(self.task.n_steps, self.n_envs, like=self._arrays(ready))
            self._place(ready, row, rollout)
        if rollout is not None:
            yield rollout, range(self.task.n_steps)

    def _is_stale(self, policy_lag: int) -> bool:
        return self.max_policy_lag is not None and policy_lag > self.max_policy_lag

    def _is_under_way(self) -> bool:
        # There is a ticket for every slot at any time.
        return True

    def _limit_chunks(self) -> None:
        """Have a chunk take no longer than an iteration divided by the chunks of a rollout."""
        now = perf_counter()
        iteration_seconds = 0.0 if self._began_at is None else now - self._began_at
        self.policy_queue.limit_chunks(iteration_seconds / len(self.chunk_steps))
        self._began_at = now

    def _ask(self) -> None:
        """Use every slot that is free."""
        for sampler in range(self.samplers.n_samplers):
            while self._ask_for_chunk(sampler, self._next_length(sampler), None, self.max_policy_lag):
                self._n_asked[sampler] += 1

    def _next_length(self, sampler: int) -> int:
        last = len(self._first_lengths) - 1
        return self._first_lengths[min(self._n_asked[sampler], last)]

    def _place(self, ready: ReadyChunk, row: int, rollout: Rollout) -> None:
        """Put the rows of a chunk where there is room. If there is more of it than room, the rest waits its turn."""
        chunk = self._arrays(ready)
        seconds_per_step = ready.report.seconds / chunk.n_steps
        while row < chunk.n_steps:
            index = _lane_for(ready.sampler, self._lanes, self.task.n_steps)
            if index is None:
                self._left_over.append((ready, row))
                return
            if row == 0:
                self._learn_statistics(ready)
            lane = self._lanes[index]
            rows = range(row, min(chunk.n_steps, row + self.task.n_steps - lane.filled))
            follows = lane.is_continued_by(ready.sampler, ready.seal.ticket, row)
            env = index * self.task.envs_per_sampler
            rollout.paste(chunk, ready.infos, rows, lane.filled, env, is_continuation=follows)
            lane.fill(ready.sampler, ready.seal.ticket, rows, chunk.n_steps)
            n_env_steps, seconds = len(rows) * chunk.n_envs, len(rows) * seconds_per_step
            self.statistics.add_steps(ready.sampler, ready.seal.version, n_env_steps, seconds)
            row = rows.stop
        self._done_with(ready)
        self._ask()

    def _learn_statistics(self, ready: ReadyChunk) -> None:
        """Merge what a sampler measured, and publish early statistics whenever there are twice as many samples."""
        self._merge_statistics(ready)
        if self.normalization is not None and self._has_young_statistics():
            n_samples = self.normalization.n_samples_seen()
            if n_samples >= 2 * self._n_samples_published:
                self._n_samples_published = n_samples
                self._publish()

    def _drop(self, ready: ReadyChunk, row: int) -> None:
        self.statistics.add_stale_steps((ready.seal.n_steps - row) * self.task.envs_per_sampler)
        self._done_with(ready)
        self._ask()


def _lane_for(sampler: int, lanes: list[Lane], n_steps: int) -> int | None:
    """The sampler's own lane while it has room, then the emptiest one."""
    if lanes[sampler].filled < n_steps:
        return sampler
    emptiest = min(range(len(lanes)), key=lambda index: lanes[index].filled)
    return emptiest if lanes[emptiest].filled < n_steps else None
