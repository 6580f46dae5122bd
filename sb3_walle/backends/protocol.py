"""Where samplers live: the few things that differ between this process, other processes and other machines."""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from sb3_walle.backends.death import Death
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.requests import Reply, Request
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues

# Number of the reply to a request that the sampler could not even unpickle, and so does not know the number of.
UNREADABLE = -2
# Number of what a sampler tells without having been asked, in mode "realtime": the reports of further chunks, a tuple,
# or a failure, after which it ends.
UNASKED = -3


class Delivery(NamedTuple):
    """The reply of a sampler to the request with that number, or what it tells without a request."""

    sampler: int
    number: int
    reply: Reply


Event: TypeAlias = Delivery | Death


class Backend(Protocol):
    """A place for samplers, as users choose it. What ``backend=`` takes."""

    #: whether samplers hold the very objects that they are given, rather than copies
    shares_objects: ClassVar[bool]

    def n_cpus(self) -> float:
        """:return: CPUs that samplers may use; infinite where that is only known after their launch"""

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> "Samplers":
        """
        :param n_samplers: number of samplers
        :param preload: names of modules that samplers are going to import
        :param supervision: how samplers are run
        :return: the samplers, idle and without environments
        """


class Samplers(Protocol):
    """
    N samplers that run somewhere.

    Requests to one sampler are carried out in the order in which they were sent, and each gets exactly one reply,
    which carries the request's number, unless the sampler dies before. A sampler ends by itself after a failure for
    which its request says so.
    """

    #: whether :meth:`close` is called when the samplers' client is garbage-collected, and at the end of the interpreter
    is_closed_when_forgotten: ClassVar[bool]
    n_samplers: int

    @property
    def n_processes(self) -> int:
        """Processes on this machine that the samplers have for themselves."""

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        """
        :param plan: how large the queues are
        :return: the learner's end of new queues to the samplers. Its ``sampler_end`` travels to them inside a request
        :raises MemoryError: if there is too little memory
        """

    def send(self, sampler: int, number: int, request: Request) -> bool:
        """
        Hand a request to a sampler. Never waits.

        :return: False if its mailbox is full: try again when it has replied to something. To a sampler that is dead,
            anything can be sent
        :raises SamplerError: if the samplers are closed
        """

    def receive(self, timeout: float | None = None) -> Event | None:
        """
        Wait for the next reply of any sampler, or the death of one.

        :param timeout: longest wait in seconds, ``None`` for ever
        :return: what happened; ``None`` if the time is over
        :raises SamplerError: if the samplers are closed
        """

    def seconds_at_step(self, sampler: int) -> float:
        """
        For how many seconds one of a sampler's environments has been making its present step or reset; 0 if none is, or
        if the backend does not keep track of it.
        """

    def kill(self, sampler: int) -> None:
        """End a sampler that does not end by itself. Its :class:`Death` follows."""

    def start(self, sampler: int) -> None:
        """Start a new sampler, without environments, in the place of one that is dead."""

    def close(self, timeout: float | None = None) -> None:
        """
        Have all samplers finish their present step, close their environments and end; leave nothing behind. May be
        called more than once.

        :param timeout: longest wait in seconds before samplers are killed, ``None`` for as long as the user has chosen
        """
