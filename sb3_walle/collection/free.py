"""Mode "free": first come, first served."""

from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.collector import Collector, ReadyChunk, warm_up_lengths
from sb3_walle.collection.placement import Arrival, Placement
from sb3_walle.collection.queues import Capacity
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.protocol import ActorSpec

# What a sampler has not delivered when its policy gets too old may be lost: about one chunk out of these.
MIN_CHUNKS = 8
# How many rollouts samplers may be ahead if their policy may be of any age.
N_ROLLOUTS_WITHOUT_BOUND = 2


class FreeCollector(Collector):
    """
    A rollout is made of what arrives first, so that nothing waits for a slow sampler. A sampler's steps go to
    columns of their own while there is room; how those that slower samplers leave empty are filled is the placement's
    to decide.

    A chunk is learned from only while the learner is at most ``max_policy_lag`` versions ahead of it. Three things see
    to that: samplers are ahead by no more than that many rollouts; they end a chunk early when its policy gets too old;
    and what is too old all the same is dropped and counted. So that a slow sampler has little to lose, its chunks are
    as short as it takes to deliver several of them in every iteration.

    :param placement: which steps fill which columns. It knows how many versions the policy may be behind, at least 1;
        if any number, only the experience queue and what waits for its turn bound how far samplers run ahead
    :param samplers: see :class:`Collector`, as for the others
    """

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        placement: Placement,
    ) -> None:
        self.max_policy_lag = placement.max_policy_lag
        super().__init__(samplers, task, actors, weights, self.capacity(self.max_policy_lag))
        self._placement = placement
        self._forget()

    @staticmethod
    def capacity(max_policy_lag: int | None) -> Capacity:
        """
        :param max_policy_lag: how many versions the policy may be behind, ``None`` for any number
        :return: what that asks of the experience queue
        """
        return Capacity(n_rollouts=max_policy_lag or N_ROLLOUTS_WITHOUT_BOUND, min_chunks=MIN_CHUNKS)

    def start_run(self) -> None:
        super().start_run()
        self._forget()

    def _forget(self) -> None:
        self._placement.start_run()
        self._began_at: float | None = None
        longest = self.chunk_steps[0]
        first = warm_up_lengths(self.task.n_steps, longest) if self._has_young_statistics() else []
        #: lengths of the first chunks of each sampler; all later ones are as long as the last of these
        self._first_lengths = [*first, longest]
        self._n_asked = [0] * self.samplers.n_samplers
        #: samplers that have a free slot and were not asked to fill it
        self._held_back: set[int] = set()
        self._n_samples_published = 0.0

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        placement = self._placement
        self._limit_chunks()
        placement.begin_rollout(version, self.statistics)
        self._ask(range(self.samplers.n_samplers), learner_waits=False)
        while not placement.is_complete:
            ready = self._next_chunk()
            self._take(ready)
            waits = not placement.is_complete and self.samplers.n_reports_waiting == 0
            self._ask({ready.sampler, *self._held_back}, learner_waits=waits)
        if placement.rollout is not None:
            yield placement.rollout, range(self.task.n_steps)

    def _is_under_way(self) -> bool:
        # There are tickets at any time.
        return True

    def _limit_chunks(self) -> None:
        """Have a chunk take no longer than an iteration divided by the chunks of a rollout."""
        now = perf_counter()
        iteration_seconds = 0.0 if self._began_at is None else now - self._began_at
        self.queues.control.limit_chunks(iteration_seconds / len(self.chunk_steps))
        self._began_at = now

    def _ask(self, samplers: Iterable[int], learner_waits: bool) -> None:
        """Use every slot that is free, but hold back who is as far ahead as a sampler may be."""
        chunk_steps = self.chunk_steps[0]
        capacity = self.queues.chunks.n_slots * chunk_steps
        for sampler in samplers:
            most_ahead = capacity + self._placement.n_steps_further(sampler, learner_waits)
            n_kept = self._placement.n_kept(sampler)
            while n_kept + self.queues.chunks.n_reserved(sampler) * chunk_steps < most_ahead:
                if not self._ask_for_chunk(sampler, self._next_length(sampler), None, self.max_policy_lag):
                    self._held_back.discard(sampler)
                    break
                self._n_asked[sampler] += 1
            else:
                self._held_back.add(sampler)

    def _next_length(self, sampler: int) -> int:
        last = len(self._first_lengths) - 1
        return self._first_lengths[min(self._n_asked[sampler], last)]

    def _take(self, ready: ReadyChunk) -> None:
        """Have a chunk placed, and learn from what the sampler measured if anything of it is used."""
        chunk = self._arrays(ready)
        arrival = Arrival(
            ready.sampler,
            ready.seal.ticket,
            ready.seal.version,
            chunk,
            ready.infos,
            ready.report.seconds / chunk.n_steps,
            release=lambda: self._done_with(ready),
        )
        if self._placement.add(arrival):
            self._learn_statistics(ready)

    def _learn_statistics(self, ready: ReadyChunk) -> None:
        """Merge what a sampler measured, and publish early statistics whenever there are twice as many samples."""
        self._merge_statistics(ready)
        if self.normalization is not None and self._has_young_statistics():
            n_samples = self.normalization.n_samples_seen()
            if n_samples >= 2 * self._n_samples_published:
                self._n_samples_published = n_samples
                self._publish()
