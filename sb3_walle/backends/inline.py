"""Samplers in this process: one after the other, with nothing to start and nothing to stop. For debugging and tests."""

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import UNASKED, Delivery, Event
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.driving import Driver
from sb3_walle.samplers.errors import CLOSED, Failure, SamplerError
from sb3_walle.samplers.requests import CloseEnvs, Drive, Request, Result, answer
from sb3_walle.samplers.sampler import Sampler
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.memory_queues import QueuePlan, open_queues
from sb3_walle.transport.ports import LearnerQueues


class InlineBackend:
    """This process: samplers hold the very objects that they are given, and nothing is pickled."""

    shares_objects: ClassVar[bool] = True
    #: as far as one process allows
    drives_plants: ClassVar[bool] = True

    def n_cpus(self) -> float:
        return 1

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> "InlineSamplers":
        return InlineSamplers(n_samplers)


class InlineSamplers:
    """Carries a request out when the client waits for a reply, in the order in which the requests were sent."""

    # The user may continue to use the very environments that it was given.
    is_closed_when_forgotten: ClassVar[bool] = False

    def __init__(self, n_samplers: int) -> None:
        self.n_samplers, self.n_processes = n_samplers, 0
        self._samplers = {index: Sampler(index) for index in range(n_samplers)}
        self._drivers = {index: Driver(sampler) for index, sampler in self._samplers.items()}
        self._next_driver = 0
        self._requests: deque[tuple[int, int, Request]] = deque()
        self._deaths: deque[Death] = deque()
        self._closed = False

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        return open_queues(plan, PrivateMemory)

    def send(self, sampler: int, number: int, request: Request) -> bool:
        if self._closed:
            raise SamplerError(CLOSED)
        if sampler in self._samplers:
            self._requests.append((sampler, number, request))
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        if self._closed:
            raise SamplerError(CLOSED)
        if self._deaths:
            return self._deaths.popleft()
        if not self._requests:
            return None if timeout == 0.0 else self._step_plant()
        index, number, request = self._requests.popleft()
        try:
            # A plant rests at the latest now if its run is over.
            if self._drivers[index].is_driving() and request.rests_plants:
                self._drivers[index].rest()
        except (Exception, SystemExit) as error:
            return self._end_driving(index, error)
        reply = answer(self._samplers[index], request)
        if isinstance(reply, Failure) and request.failure_ends_sampler:
            self.kill(index)
        return Delivery(index, number, reply)

    def _step_plant(self) -> Event | None:
        """Mode "realtime" as far as one process allows: plants make a step whenever the learner waits, in turn."""
        for _ in range(len(self._samplers)):
            index = self._next_driver % self.n_samplers
            self._next_driver = index + 1
            driver = self._drivers.get(index)
            try:
                if driver is not None and driver.is_driving():
                    return Delivery(index, UNASKED, Result((driver.tick(),)))
            except (Exception, SystemExit) as error:
                return self._end_driving(index, error)
        return None

    def _end_driving(self, sampler: int, error: BaseException) -> Event:
        failure = Failure.of(error, Drive.summary)
        self.kill(sampler)
        return Delivery(sampler, UNASKED, failure)

    def seconds_at_step(self, sampler: int) -> float:
        return 0.0

    def kill(self, sampler: int) -> None:
        ending = self._samplers.pop(sampler, None)
        if ending is not None:
            # A failure in letting the plant rest tells nothing new either.
            with contextlib.suppress(Exception):
                self._drivers.pop(sampler).rest()
            # A failure in closing what has failed before tells nothing new.
            answer(ending, CloseEnvs())
            self._requests = deque(request for request in self._requests if request[0] != sampler)
            self._deaths.append(Death(sampler, "ended"))

    def start(self, sampler: int) -> None:
        self._samplers[sampler] = Sampler(sampler)
        self._drivers[sampler] = Driver(self._samplers[sampler])

    def close(self, timeout: float | None = None) -> None:
        if not self._closed:
            self._closed = True
            self._requests.clear()
            for index, sampler in self._samplers.items():
                try:
                    self._drivers[index].rest()
                finally:
                    sampler.close()
