"""N samplers, as their owner talks to them."""

from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any

from sb3_walle.backends.protocol import UNREADABLE, Backend
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import Collect, Reply, Request
from sb3_walle.samplers.sampler import ChunkReport, Ticket


class SamplerClient:
    """
    Sends requests and sorts the replies: those that somebody waits for, and the reports of chunks, which may come at
    any time.

    :param backend: where the samplers live
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._numbers = count()
        # Replies are recognised by number. So whatever is lost or left over when an exception, Ctrl-C say, ends a wait
        # at any instruction, no reply is ever taken for the answer to something else.
        self._collecting: set[int] = set()
        self._reports: deque[tuple[int, Reply]] = deque()

    @property
    def n_samplers(self) -> int:
        """Number of samplers."""
        return self._backend.n_samplers

    @property
    def n_processes(self) -> int:
        """Number of processes that the samplers have for themselves on this machine."""
        return self._backend.n_processes

    def call(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """
        Have samplers do something, and wait until they have done it. While a sampler is collecting, that is when it has
        finished the chunks that it was asked for before.

        :param requests: one request for each of some samplers, by their numbers
        :return: what each returned
        :raises SamplerError: if one of them failed or died
        """
        waiting: dict[int, int] = {}
        for sampler, request in requests.items():
            number = next(self._numbers)
            waiting[number] = sampler
            self._backend.send(sampler, number, request)
        values = {}
        while waiting:
            number, reply = self._receive(None)
            if number in waiting:
                sampler = waiting.pop(number)
                values[sampler] = _value(sampler, reply)
        return {sampler: values[sampler] for sampler in requests}

    def collect(self, sampler: int, ticket: Ticket) -> None:
        """
        Ask a sampler for a chunk. Its report is delivered by :meth:`next_report`.

        :param sampler: number of the sampler
        :param ticket: what to collect
        """
        number = next(self._numbers)
        self._collecting.add(number)
        self._backend.send(sampler, number, Collect(ticket))

    def next_report(self) -> tuple[int, ChunkReport]:
        """
        Wait for a chunk.

        :return: number of the sampler and its report, in the order of arrival
        :raises SamplerError: if a sampler failed or died
        """
        while not self._reports:
            self._receive(None)
        sampler, reply = self._reports.popleft()
        return sampler, _value(sampler, reply)

    def receive_waiting_reports(self) -> None:
        """Take in what has arrived, without waiting."""
        while self._receive(0.0)[1] is not None:
            continue

    @property
    def n_reports_waiting(self) -> int:
        """Number of chunks that were reported and not yet taken."""
        return len(self._reports)

    def forget_reports(self) -> None:
        """Have no more interest in the chunks that were asked for until now."""
        self._collecting.clear()
        self._reports.clear()

    def close(self) -> None:
        """End all samplers."""
        self._backend.close()

    def _receive(self, timeout: float | None) -> tuple[int, Reply | None]:
        """
        Take the next reply. A report is put aside, also that of a failure: it is no concern of whoever is waiting for
        something else. The number and the reply are returned in any case.
        """
        delivery = self._backend.receive(timeout)
        if delivery is None:
            return -1, None
        if delivery.number in self._collecting:
            self._collecting.discard(delivery.number)
            self._reports.append((delivery.sampler, delivery.reply))
        elif delivery.number == UNREADABLE:
            _value(delivery.sampler, delivery.reply)
        return delivery.number, delivery.reply


def _value(sampler: int, reply: Reply | None) -> Any:
    if isinstance(reply, Failure):
        raise reply.to_error(sampler)
    return None if reply is None else reply.value
