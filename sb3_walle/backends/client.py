"""N samplers, as their owner talks to them."""

import math
import time
import weakref
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any

from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import UNASKED, UNREADABLE, Delivery, Samplers
from sb3_walle.backends.silence import SilenceWarning
from sb3_walle.backends.supervised_sampler import SupervisedSampler
from sb3_walle.backends.supervision import Restarts, Supervision, hung
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import Collect, Reply, Request, Result, Step
from sb3_walle.samplers.tickets import Ticket
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues

# A sampler that hangs is noticed within this part of the time that a step may take.
WATCHES_PER_TIMEOUT = 4
# Longer than any time that matters, and still what the system takes for a time.
LONGEST_PAUSE = 3600.0
# Number of a request that was never made.
NO_REQUEST = -1


class SamplerClient:
    """
    Sends requests and sorts the replies: those that a caller waits for, and reports, of chunks say, which may come at
    any time. Where a sampler dies, another one takes its place, is set up as the dead one was, and carries out what
    that one left undone, so that each caller gets its reply.

    :param supervision: what happens when samplers die or hang
    """

    def __init__(self, samplers: Samplers, supervision: Supervision | None = None) -> None:
        self.supervision = supervision or Supervision()
        self._samplers = samplers
        if samplers.is_closed_when_forgotten:
            weakref.finalize(self, samplers.close)
        self._numbers = count()
        # Of samplers that could not be started.
        self._deaths: deque[Death] = deque()
        self._supervised = [
            SupervisedSampler(sampler, samplers, self._numbers, self._deaths) for sampler in range(samplers.n_samplers)
        ]
        self._restarts = Restarts(self.supervision, samplers.n_samplers)
        self._silence = SilenceWarning(self._supervised)
        # Replies are recognised by number. So what is lost or left over when an exception, Ctrl-C say, ends a wait
        # at any instruction, no reply is ever taken for the answer to something else.
        self._posted: set[int] = set()
        self._reports: deque[tuple[int, Reply]] = deque()
        # Of a sampler that acted in real time, and is not replaced. No further report will come of it.
        self._end_of_drive: BaseException | None = None
        # What was asked of samplers that died and cannot be asked of others.
        self._lost: deque[tuple[int, Death]] = deque()

    @property
    def n_samplers(self) -> int:
        return self._samplers.n_samplers

    @property
    def n_processes(self) -> int:
        return self._samplers.n_processes

    @property
    def n_restarts(self) -> int:
        """How many samplers have died and were replaced."""
        return self._restarts.n_restarts

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        """Open new queues to the samplers, see :meth:`Samplers.open_queues`."""
        return self._samplers.open_queues(plan)

    def call(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """
        Have samplers do something, and wait until they have done it. While a sampler is collecting, that is when it has
        finished the chunks that it was asked for before.

        :param requests: one request for each of some samplers, by their numbers
        :return: what each returned
        :raises SamplerError: if one of them failed, or died and is not replaced
        """
        waiting: dict[int, int] = {}
        for sampler, request in requests.items():
            number = next(self._numbers)
            waiting[number] = sampler
            self._supervised[sampler].send(number, request)
        values = {}
        while waiting:
            number, reply = self._receive(None)
            if number in waiting:
                sampler = waiting.pop(number)
                values[sampler] = _value(sampler, reply)
                if isinstance(requests[sampler], Step):
                    self._restarts.has_worked(sampler)
        return {sampler: values[sampler] for sampler in requests}

    def collect(self, sampler: int, ticket: Ticket) -> None:
        """Ask a sampler for a chunk. Its report is delivered by :meth:`next_report`."""
        self.post(sampler, Collect(ticket))

    def post(self, sampler: int, request: Request) -> None:
        """Ask a sampler for something without waiting. What it returns is delivered by :meth:`next_report`."""
        number = next(self._numbers)
        self._posted.add(number)
        self._supervised[sampler].send(number, request)

    def next_report(self) -> tuple[int, Any]:
        """
        Wait for what a sampler was asked for without waiting: the report of a chunk, say.

        :return: number of the sampler and what it returned, in the order of arrival
        :raises SamplerError: if a sampler died and is not replaced
        """
        while not self._reports:
            if self._end_of_drive is not None:
                raise self._end_of_drive
            self._receive(None)
        sampler, reply = self._reports.popleft()
        return sampler, _value(sampler, reply)

    def receive_waiting_reports(self) -> None:
        """Take in what has arrived, without waiting."""
        while self._receive(0.0)[1] is not None:
            continue

    @property
    def n_reports_waiting(self) -> int:
        return len(self._reports)

    @property
    def reports_waiting(self) -> list[Reply]:
        """What has been taken in and not been delivered yet."""
        return [reply for _, reply in self._reports]

    def forget_reports(self) -> None:
        """Have no more interest in what was asked for without waiting until now, or in what comes unasked."""
        self._end_of_drive = None
        for sampler in self._supervised:
            sampler.end_drive()
        self._posted.clear()
        self._reports.clear()
        self._restarts.begin_anew()

    def close(self, timeout: float | None = None) -> None:
        """End all samplers, see :meth:`Samplers.close`."""
        self._samplers.close(timeout)

    def _receive(self, timeout: float | None) -> tuple[int, Reply | Death | None]:
        """
        Take the next reply. A report is put aside, also that of a failure: the caller may be waiting for
        something else. The number and the reply are returned in any case.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._lost:
            self._look_after_samplers()
            event = self._deaths.popleft() if self._deaths else self._samplers.receive(self._pause(deadline))
            if isinstance(event, Death):
                self._replace(event)
            elif event is not None:
                number = self._number_of(event)
                if number == UNASKED:
                    self._take_unasked(event.sampler, event.reply)
                    return number, event.reply
                if self._supervised[event.sampler].answer(number, event.reply):
                    self._put_aside_report(event.sampler, number, event.reply)
                    return number, event.reply
            elif time.monotonic() >= deadline:
                return NO_REQUEST, None
            else:
                self._silence.look()
        return self._lost.popleft()

    def _number_of(self, delivery: Delivery) -> int:
        """Which request a delivery answers. What cannot be read is the oldest: they are answered in their order."""
        if delivery.number != UNREADABLE:
            return delivery.number
        number = self._supervised[delivery.sampler].oldest_request()
        return NO_REQUEST if number is None else number

    def _put_aside_report(self, sampler: int, number: int, reply: Reply) -> None:
        if number in self._posted:
            self._posted.discard(number)
            self._reports.append((sampler, reply))
            self._restarts.has_worked(sampler)

    def _take_unasked(self, sampler: int, reply: Reply) -> None:
        """Take in chunks that a sampler has made in real time, or its failure, which its death follows."""
        if isinstance(reply, Failure):
            self._supervised[sampler].fail(reply)
            return
        self._supervised[sampler].note_steps(reply.value)
        self._reports += [(sampler, Result(report)) for report in reply.value]
        self._restarts.has_worked(sampler)

    def _replace(self, death: Death) -> None:
        """Have another sampler take the place of a dead one, unless that was one death too many."""
        sampler = self._supervised[death.sampler]
        death = sampler.note_death(death)
        try:
            delay = self._restarts.after(death)
        except BaseException as error:
            sampler.forget()
            if sampler.is_driving:
                # The caller may be a callback that ignores errors.
                sampler.end_drive()
                self._end_of_drive = error
            raise
        for number in sampler.take_lost():
            self._lost.append((number, death))
        sampler.due_at = time.monotonic() + delay

    def _look_after_samplers(self) -> None:
        """Start those whose time has come, and kill those that do not end or whose environments hang."""
        now, timeout = time.monotonic(), self.supervision.step_timeout
        for sampler in self._supervised:
            sampler.keep_up(now)
            if timeout is not None and self._samplers.seconds_at_step(sampler.sampler) > timeout:
                sampler.kill(hung(timeout))

    def _pause(self, deadline: float) -> float:
        """For how long to wait for samplers until looking after them again."""
        now = time.monotonic()
        until = min(deadline, self._silence.ends_at, *(sampler.due_at for sampler in self._supervised))
        if self.supervision.step_timeout is not None:
            until = min(until, now + self.supervision.step_timeout / WATCHES_PER_TIMEOUT)
        return min(max(0.0, until - now), LONGEST_PAUSE)


def _value(sampler: int, reply: Reply | Death | None) -> Any:
    if isinstance(reply, Death):
        raise reply.to_error()
    if isinstance(reply, Failure):
        raise reply.to_error(sampler)
    return None if reply is None else reply.value
