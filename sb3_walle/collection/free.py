"""Mode "free": first come, first served."""

from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.collector import Collector, warm_up_lengths
from sb3_walle.collection.placement import Placement
from sb3_walle.collection.queues import QueueCapacity
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.protocol import ActorSpec


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
    """

    needs_all_samplers = False

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        capacity: QueueCapacity,
        placement: Placement,
    ) -> None:
        self._placement = placement
        super().__init__(samplers, task, actors, weights, capacity)

    def _forget(self) -> None:
        super()._forget()
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
            arrival = self._next_chunk()
            if placement.add(arrival):
                self._learn_statistics(arrival)
            waits = not placement.is_complete and self.samplers.n_reports_waiting == 0
            self._ask({arrival.sampler, *self._held_back}, learner_waits=waits)
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
        """Use every slot that is free, but hold samplers back that are as far ahead as they may be."""
        chunks, chunk_steps = self.queues.chunks, self.chunk_steps[0]
        for sampler in samplers:
            most = chunks.n_slots * chunk_steps + self._placement.n_further_steps(sampler, learner_waits)
            while chunks.n_reserved(sampler) * chunk_steps < most:
                length = self._first_lengths[min(self._n_asked[sampler], len(self._first_lengths) - 1)]
                if not self._ask_for_chunk(sampler, length, None, self._placement.max_policy_lag):
                    self._held_back.discard(sampler)
                    break
                self._n_asked[sampler] += 1
            else:
                self._held_back.add(sampler)

    def _learn_statistics(self, arrival: Arrival) -> None:
        """Merge what a sampler measured, and publish early statistics whenever there are twice as many samples."""
        self._merge_statistics(arrival)
        if self.normalization is not None and self._has_young_statistics():
            n_samples = self.normalization.n_samples_seen()
            if n_samples >= 2 * self._n_samples_published:
                self._n_samples_published = n_samples
                self._publish()
