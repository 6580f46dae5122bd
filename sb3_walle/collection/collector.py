"""The learner's side of collecting: publishes weights, hands out tickets, takes chunks. Subclasses are the modes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from time import perf_counter
from typing import ClassVar

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.queues import QueueCapacity, plan_queues
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.statistics import CollectionStatistics
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.episodes import EpisodeShare
from sb3_walle.samplers.infos import unpack
from sb3_walle.samplers.requests import Configure, Reply, Result
from sb3_walle.samplers.sampler import CollectionSettings
from sb3_walle.samplers.tickets import ChunkReport, Ticket
from sb3_walle.timeline.timeline import GivenTicket, TakenChunk, Timeline
from sb3_walle.transport.chunk import Seal


def warm_up_lengths(n_steps: int, longest: int) -> list[int]:
    """
    Chunk lengths of a rollout while there are hardly any statistics to normalise with: each chunk is as long as all
    before it together, so that each is collected with statistics of at least half of the steps so far.
    """
    lengths: list[int] = []
    while (collected := sum(lengths)) < n_steps:
        lengths.append(min(max(collected, 1), longest, n_steps - collected))
    return lengths


class Collector(ABC):
    """
    Collects rollouts from samplers.

    A *run* is a sequence of rollouts without interruption. Samplers abandon what they are doing when a new one begins.

    :param actors: the spec of each sampler's actor
    :param weights: the policy's weights, for their shapes and types
    :param capacity: what the mode asks of the experience queue
    :raises MemoryError: if there is too little memory for the queues
    """

    #: whether a rollout takes a fixed share of every sampler
    needs_all_samplers: ClassVar[bool] = True

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        capacity: QueueCapacity,
    ) -> None:
        self.samplers = samplers
        self.task = task
        #: how many steps a rollout has, all environments together; about as many if it consists of whole episodes
        self.n_samples_per_rollout = self.n_envs * task.n_steps
        #: how long the whole episodes of the last rollout were on average, ``None`` if that is unknown
        self.mean_episode_steps: float | None = None
        #: which infos are passed on from now on
        self.infos = task.infos
        self.statistics = CollectionStatistics(samplers.n_samplers, self.needs_all_samplers)
        #: keeps what is done from now on, if it is wanted
        self.timeline: Timeline | None = None
        plan = plan_queues(task, samplers.n_samplers, capacity, actors[0], weights)
        #: how many rollouts the experience queue holds, and so how many samplers are asked for at most
        self.n_rollouts_queued = capacity.n_rollouts
        #: lengths of the chunks that make up a sampler's share of a rollout
        self.chunk_steps = plan.chunk_steps
        self.normalization = task.normalization
        #: which entries of the policy's ``state_dict()`` the samplers need
        self.weight_names = tuple(weights)
        self.queues = samplers.open_queues(plan.queues)
        self._forget()
        self._configure(actors)

    @property
    def n_envs(self) -> int:
        return self.samplers.n_samplers * self.task.envs_per_sampler

    @property
    def n_samplers_at_work(self) -> int:
        """How many samplers may be collecting at this moment, in processes of their own."""
        return self.samplers.n_processes if self._is_under_way() else 0

    @property
    def n_steps_ahead(self) -> int:
        """How many steps of each environment come before those that are collected with the weights published next."""
        return 0

    def start_run(self) -> None:
        """Begin anew: samplers abandon what they were asked for before."""
        self.interrupt()
        self.queues.chunks.release_all()
        self.statistics.workload.forget()
        self._forget()

    def plan_rollouts(self, n_samples: int, mean_episode_steps: float | None) -> None:
        """
        Say how large rollouts are from now on. It matters where they consist of whole episodes.

        :param n_samples: how many steps they have, all environments together
        :param mean_episode_steps: how long episodes are on average, ``None`` if that is unknown
        """
        self.n_samples_per_rollout, self.mean_episode_steps = n_samples, mean_episode_steps

    def interrupt(self) -> None:
        """Have the samplers abandon what they are collecting. Does not wait for them."""
        self.queues.control.start_run()
        self.samplers.forget_reports()

    def collect(
        self, version: int, weights: Mapping[str, np.ndarray], n_rollouts_left: int
    ) -> Iterator[tuple[Rollout, range]]:
        """
        Collect a rollout.

        :param version: the learner's policy version
        :param weights: the learner's weights
        :param n_rollouts_left: how many rollouts the learner is going to ask for in this run, this one included
        :return: the rollout, again and again, with the rows that have been completed since the last time
        :raises SamplerError: if a sampler failed or died
        """
        self.samplers.receive_waiting_reports()
        self.statistics.begin_rollout(version, self._queue_fill())
        self._version, self._weights = version, weights
        self._publish()
        yield from self._collect(version, n_rollouts_left)

    def _forget(self) -> None:
        """Forget what was asked for and collected, as a run begins."""
        self._n_taken = 0
        self._ticket_numbers = [count() for _ in range(self.samplers.n_samplers)]

    @abstractmethod
    def _is_under_way(self) -> bool:
        """Whether more has been asked for than was collected."""

    @abstractmethod
    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        """Hand out tickets, and put the chunks that arrive together."""

    def _has_young_statistics(self) -> bool:
        """Whether the statistics to normalise with are of less than a rollout, and so of little use until the next."""
        if self.normalization is None:
            return False
        return self.normalization.n_samples_seen() < self.n_samples_per_rollout

    def _publish(self) -> None:
        """Publish the learner's weights, and the statistics as they are now."""
        self.queues.policy.publish(self._version, {**self._weights, **self.task.published_statistics()})
        self.queues.control.announce(self._version)

    def _configure(self, actors: list[ActorSpec]) -> None:
        requests = {
            sampler: Configure(
                CollectionSettings(
                    actor=actor,
                    queues=self.queues.sampler_end,
                    squash_output=self.task.squash_output,
                    layers=self.task.layers,
                    check_finite=self.task.check_finite,
                    max_episode_steps=None if self.task.episodes is None else self.task.episodes.max_steps,
                    realtime=self.task.realtime,
                )
            )
            for sampler, actor in enumerate(actors)
        }
        self.samplers.call(requests)

    def _ask_for_chunk(
        self,
        sampler: int,
        n_steps: int,
        version: int | None,
        max_policy_lag: int | None = None,
        shares: tuple[EpisodeShare, ...] = (),
    ) -> bool:
        """Hand out a ticket. Returns False if the sampler has no slot left."""
        slot = self.queues.chunks.reserve(sampler)
        if slot is None:
            return False
        number = next(self._ticket_numbers[sampler])
        run = self.queues.control.run
        if self.timeline is not None:
            self.timeline.note(GivenTicket(sampler, number, perf_counter()))
        self.samplers.collect(sampler, Ticket(number, run, slot, n_steps, version, max_policy_lag, self.infos, shares))
        return True

    def _next_chunk(self) -> Arrival:
        """Wait for the next chunk of any sampler."""
        while True:
            wait_began = perf_counter()
            sampler, report = self.samplers.next_report()
            taken_at = perf_counter()
            self.statistics.add_wait(taken_at - wait_began)
            seal = report.seal
            if not self._is_wanted(report):
                continue
            if seal is not None:
                if self.timeline is not None:
                    self.timeline.note(TakenChunk(sampler, seal, report.began, report.ended, wait_began, taken_at))
                return self._arrive(sampler, report, seal)
            self._take_back(sampler, report.slot)

    def _is_wanted(self, report: ChunkReport) -> bool:
        """Whether a report belongs to the current run, where samplers may tell of others."""
        return True

    def _arrive(self, sampler: int, report: ChunkReport, seal: Seal) -> Arrival:
        # A slot that holds something else is an error now, and not when the chunk is used.
        chunk = self.queues.chunks.chunk(sampler, report.slot, seal)
        self._n_taken += 1
        release = partial(self._release, sampler, report.slot)
        infos = unpack(report.infos or [])
        return Arrival(sampler, seal.ticket, seal.version, chunk, infos, report.ended - report.began, release)

    def _take_back(self, sampler: int, slot: int) -> None:
        """A ticket has come back without a chunk."""
        self.queues.chunks.release(sampler, slot)

    def _release(self, sampler: int, slot: int) -> None:
        self.queues.chunks.release(sampler, slot)
        self._n_taken -= 1

    def _merge_statistics(self, arrival: Arrival) -> None:
        """Learn from what a sampler measured, when its chunk is used for the first time."""
        if self.normalization is not None:
            self.normalization.merge(arrival.chunk)

    def _queue_fill(self) -> float:
        """Share of the experience queue that holds finished chunks, between 0 and 1."""
        n_finished = sum(map(_is_of_chunk, self.samplers.reports_waiting)) + self._n_taken
        return n_finished / (self.samplers.n_samplers * self.queues.chunks.n_slots)


def _is_of_chunk(reply: Reply) -> bool:
    """Whether a report is one of a chunk, rather than of a ticket for which there was nothing left to collect."""
    return not isinstance(reply, Result) or reply.value.seal is not None
