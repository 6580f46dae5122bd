"""Samplers in this process: one after the other, with nothing to start and nothing to stop. For debugging and tests."""

from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import Delivery, Event
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.errors import CLOSED, Failure, SamplerError
from sb3_walle.samplers.requests import CloseEnvs, Request, answer
from sb3_walle.samplers.sampler import Sampler
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.memory_queues import QueuePlan, open_queues
from sb3_walle.transport.ports import LearnerQueues


class InlineBackend:
    """This process: samplers hold the very objects that they are given, and nothing is pickled."""

    shares_objects: ClassVar[bool] = True

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> "InlineSamplers":
        """
        :param n_samplers: number of samplers
        :param preload: not used: there is no process to prepare
        :param supervision: not used: there is nothing here that could be interrupted or killed
        :return: the samplers, idle and without environments
        """
        return InlineSamplers(n_samplers)


class InlineSamplers:
    """
    Carries a request out when the client waits for a reply, in the order in which the requests were sent.

    :param n_samplers: number of samplers
    """

    # The user may go on with the very environments that it was given.
    is_closed_when_forgotten: ClassVar[bool] = False

    def __init__(self, n_samplers: int) -> None:
        self.n_samplers, self.n_processes = n_samplers, 0
        self._samplers: list[Sampler | None] = [Sampler(index) for index in range(n_samplers)]
        self._requests: deque[tuple[int, int, Request]] = deque()
        self._deaths: deque[Death] = deque()
        self._closed = False

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        """
        :param plan: how large they are
        :return: queues in memory of this process
        """
        return open_queues(plan, PrivateMemory)

    def send(self, sampler: int, number: int, request: Request) -> bool:
        """
        :param sampler: number of the sampler
        :param number: number of the request
        :param request: what to do
        :return: True
        :raises SamplerError: if the samplers are closed
        """
        if self._closed:
            raise SamplerError(CLOSED)
        if self._samplers[sampler] is not None:
            self._requests.append((sampler, number, request))
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        """
        :param timeout: not used: each request is carried out here and now
        :return: the next reply, or the end of a sampler after a failure; ``None`` if nothing was asked
        :raises SamplerError: if the samplers are closed
        """
        if self._closed:
            raise SamplerError(CLOSED)
        if self._deaths:
            return self._deaths.popleft()
        if self._requests:
            index, number, request = self._requests.popleft()
            sampler = self._samplers[index]
            if sampler is None:
                return None
            reply = answer(sampler, request)
            if isinstance(reply, Failure) and request.failure_ends_sampler:
                self.kill(index)
            return Delivery(index, number, reply)
        return None

    def seconds_at_step(self, sampler: int) -> float:
        """
        :param sampler: number of the sampler
        :return: 0: while one of its environments makes a step, nothing else runs
        """
        return 0.0

    def kill(self, sampler: int) -> None:
        """
        :param sampler: number of the sampler
        """
        ending, self._samplers[sampler] = self._samplers[sampler], None
        if ending is not None:
            # A failure in closing what has failed before tells nothing new.
            answer(ending, CloseEnvs())
            self._requests = deque(request for request in self._requests if request[0] != sampler)
            self._deaths.append(Death(sampler, "ended"))

    def start(self, sampler: int) -> None:
        """
        :param sampler: number of the sampler
        """
        self._samplers[sampler] = Sampler(sampler)

    def close(self, timeout: float | None = None) -> None:
        """
        Close the environments.

        :param timeout: not used: they are closed in this process
        """
        if not self._closed:
            self._closed = True
            self._requests.clear()
            for sampler in self._samplers:
                if sampler is not None:
                    sampler.close()
