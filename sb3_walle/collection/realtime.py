"""Mode "realtime": samplers act on plants that never wait, and the learner takes the steps that have been made."""

from collections import deque
from collections.abc import Iterator, Mapping
from time import perf_counter

import numpy as np

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.stream_placement import StreamPlacement
from sb3_walle.realtime.priority import GivingWay
from sb3_walle.realtime.statistics import RealtimeStatistics
from sb3_walle.samplers.errors import SamplerError
from sb3_walle.samplers.requests import Drive, Reply, Result
from sb3_walle.samplers.tickets import ChunkReport, DriveOrder
from sb3_walle.transport.chunk import Seal

# Times of publications are kept for as many versions. Samplers take the newest one at each tick.
MOST_PUBLICATIONS = 1024


class RealtimeCollector(Collector):
    """
    A sampler takes the slots of the experience queue in turn, one step each, without being asked. So it depends on the
    learner only where the queue is full: there it fails, after the plant was given the fallback action.

    A rollout is one step of every environment. Those that have arrived are at hand without waiting.
    """

    needs_all_samplers = False

    def _forget(self) -> None:
        super()._forget()
        task = self.task
        assert task.realtime is not None and task.streams is not None
        self._giving_way = GivingWay()
        #: when steps were made, since the run began
        self.realtime_statistics = RealtimeStatistics(task.realtime.control_hz)
        self._placement = StreamPlacement(self.samplers.n_samplers, task.envs_per_sampler, task.n_steps, task.streams)
        self._placement.begin_rollout(0, self.statistics)
        self._ready: deque[Rollout] = deque()
        self._driven_run: int | None = None
        self._error: SamplerError | None = None
        #: when versions were published, and which of them have acted on a plant
        self._published_at: dict[int, float] = {}
        self._has_acted: set[tuple[int, int]] = set()

    def interrupt(self) -> None:
        super().interrupt()
        self._giving_way.end()
        self.realtime_statistics.settle()

    @property
    def is_driving(self) -> bool:
        """Whether samplers act on their plants."""
        return self._driven_run == self.queues.control.run

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """
        Publish the learner's weights without collecting anything.

        :param version: the learner's policy version
        :param weights: the learner's weights
        """
        self._version, self._weights = version, weights
        self._publish()

    def n_rollouts_ready(self) -> int:
        """
        :return: how many rollouts can be collected without waiting
        :raises SamplerError: if a sampler failed or died, and all that was collected before that has been taken
        """
        if self._error is None:
            try:
                self.samplers.receive_waiting_reports()
            except SamplerError as error:
                self._error = error
        for _ in range(sum(map(self._is_of_this_run, self.samplers.reports_waiting))):
            self._take_chunk()
        if self._error is not None and not self._ready:
            raise self._error
        return len(self._ready)

    def _publish(self) -> None:
        super()._publish()
        self._published_at.setdefault(self._version, perf_counter())
        if len(self._published_at) > MOST_PUBLICATIONS:
            del self._published_at[next(iter(self._published_at))]

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        if not self.is_driving:
            self._begin_driving()
        while True:
            while not self._ready:
                if self._error is not None:
                    raise self._error
                self._take_chunk()
            yield self._ready.popleft(), range(self.task.n_steps)

    def _begin_driving(self) -> None:
        if self.samplers.n_processes:
            self._giving_way.begin()
        run = self._driven_run = self.queues.control.run
        order = DriveOrder(run, self.infos, self.queues.chunks.n_slots)
        self.samplers.call({sampler: Drive(order) for sampler in range(self.samplers.n_samplers)})

    def _is_under_way(self) -> bool:
        return True

    def _take_chunk(self) -> None:
        """Wait for a chunk of any sampler, and put it into rollouts."""
        arrival, placement = self._next_chunk(), self._placement
        if placement.add(arrival):
            self._merge_statistics(arrival)
        while placement.is_complete:
            assert placement.rollout is not None
            self._ready.append(placement.rollout)
            placement.begin_rollout(self._version, self.statistics)

    def _arrive(self, sampler: int, report: ChunkReport, seal: Seal) -> Arrival:
        self._note_times(sampler, report, seal.version)
        return super()._arrive(sampler, report, seal)

    def _is_of_this_run(self, reply: Reply) -> bool:
        return isinstance(reply, Result) and self._is_wanted(reply.value)

    def _is_wanted(self, report: ChunkReport) -> bool:
        # Samplers may tell of steps that they have made before they noticed the end of their run.
        return report.run == self._driven_run

    def _note_times(self, sampler: int, report: ChunkReport, version: int) -> None:
        published_at = self._published_at.get(version)
        if report.times is None or published_at is None:
            return
        age = max(0.0, report.began - published_at)
        is_first = (sampler, version) not in self._has_acted
        if is_first:
            self._has_acted = {(which, other) for which, other in self._has_acted if which != sampler}
            self._has_acted.add((sampler, version))
        self.realtime_statistics.add(report.times, age, age if is_first else None)
