"""Where samplers live: the few things that differ between this process, other processes and other machines."""

from typing import NamedTuple, Protocol

from sb3_walle.samplers.requests import Reply, Request

# Number of the reply to a request that the sampler could not even unpickle, and so does not know the number of.
UNREADABLE = -2


class Delivery(NamedTuple):
    """
    A reply, as it arrives.

    :param sampler: number of the sampler that it comes from
    :param number: number of the request that it answers
    :param reply: the reply
    """

    sampler: int
    number: int
    reply: Reply


class Backend(Protocol):
    """
    N samplers, somewhere.

    Requests to one sampler are carried out in the order in which they were sent, and each gets exactly one reply,
    which carries the request's number.
    """

    n_samplers: int
    #: processes on this machine that the samplers have for themselves
    n_processes: int

    def send(self, sampler: int, number: int, request: Request) -> None:
        """
        Hand a request to a sampler. Does not wait until it is carried out.

        :param sampler: number of the sampler
        :param number: number of the request
        :param request: what to do
        :raises SamplerError: if the sampler is dead, or does not take messages any more
        """

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """
        Wait for the next reply of any sampler.

        :param timeout: longest wait in seconds, ``None`` to wait for as long as all samplers live
        :return: the reply; ``None`` if the time is over
        :raises SamplerError: if a sampler died
        """

    def close(self) -> None:
        """End all samplers, and leave nothing behind. May be called more than once."""
