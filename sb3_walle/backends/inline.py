"""Samplers in this process: one after the other, with nothing to start and nothing to stop. For debugging and tests."""

from collections import deque

from sb3_walle.backends.protocol import Delivery
from sb3_walle.samplers.errors import SamplerError
from sb3_walle.samplers.requests import Request, answer
from sb3_walle.samplers.sampler import Sampler


class InlineBackend:
    """
    Carries a request out when somebody waits for a reply, in the order in which the requests were sent.

    :param n_samplers: number of samplers
    """

    def __init__(self, n_samplers: int) -> None:
        self.n_samplers, self.n_processes = n_samplers, 0
        self._samplers = [Sampler(index) for index in range(n_samplers)]
        self._requests: deque[tuple[int, int, Request]] = deque()
        self._closed = False

    def send(self, sampler: int, number: int, request: Request) -> None:
        """
        :param sampler: number of the sampler
        :param number: number of the request
        :param request: what to do
        :raises SamplerError: if the samplers are closed
        """
        if self._closed:
            raise SamplerError("The samplers are closed. Make new ones, and give them to a model with set_env().")
        self._requests.append((sampler, number, request))

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """
        :param timeout: not used: there is nobody to wait for
        :return: the next reply; ``None`` if nothing was asked
        """
        if not self._requests:
            return None
        sampler, number, request = self._requests.popleft()
        return Delivery(sampler, number, answer(self._samplers[sampler], request))

    def close(self) -> None:
        """Close the environments."""
        if not self._closed:
            self._closed = True
            self._requests.clear()
            for sampler in self._samplers:
                sampler.close()
