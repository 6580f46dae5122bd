"""One sampler, as its client sees it: what it was asked, and what follows when it fails, hangs or dies."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto

from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import Samplers
from sb3_walle.samplers.errors import Failure, SamplerError
from sb3_walle.samplers.requests import Drive, Reply, Request, Result
from sb3_walle.samplers.succession import SetupRequests
from sb3_walle.samplers.tickets import ChunkReport

NEVER = math.inf
# Time for a sampler whose environment has failed to close it, before it is killed.
END_TIMEOUT = 2.0


class State(Enum):
    """
    Of one sampler. ``RUNNING`` becomes ``FAILED`` by a reply after which it ends by itself, either becomes ``KILLED``
    by :meth:`SupervisedSampler.kill`, and each becomes ``DEAD`` by the news of its death. A start makes it ``RUNNING``.
    """

    RUNNING = auto()
    FAILED = auto()
    KILLED = auto()
    DEAD = auto()


class SupervisedSampler:
    """
    What was asked of a sampler and not answered yet. When it dies and another one is started under the same number,
    that one first gets the requests that set the dead one up, and then what the dead one left undone.

    :param numbers: numbers for further requests
    :param deaths: takes the death of one that cannot be started
    """

    def __init__(self, sampler: int, samplers: Samplers, numbers: Iterator[int], deaths: deque[Death]) -> None:
        self.sampler = sampler
        self._samplers = samplers
        self._numbers = numbers
        self._deaths = deaths
        self._setup = SetupRequests()
        #: how many samplers have died under this number
        self.incarnation = 0
        self.state = State.RUNNING
        # All requests that were not answered, in their order. Those that the mailbox had no room for are unsent, too.
        self._open: dict[int, Request] = {}
        self._unsent: deque[int] = deque()
        self._preparing: set[int] = set()
        #: when to act: start a new one, or kill one that has failed and does not end
        self.due_at = NEVER
        self._failure: Failure | None = None
        self._reason_to_kill: str | None = None
        self._heard_at = time.monotonic()

    @property
    def silent_since(self) -> float:
        """When the sampler was heard of last, if it has something to do; otherwise never."""
        has_something_to_do = self._open or self.is_driving
        return self._heard_at if has_something_to_do and self.state is not State.DEAD else NEVER

    @property
    def activity(self) -> str:
        """What the sampler is doing, as in "Sampler 3 was killed while ..."."""
        if not self._open and self.is_driving:
            return Drive.summary
        return next((request.summary for request in self._open.values()), "waiting for something to do")

    def send(self, number: int, request: Request) -> None:
        if not self._open:
            self._heard_at = time.monotonic()
        self._open[number] = request
        self._unsent.append(number)
        if self.state is State.DEAD and self.due_at == NEVER:
            # A request to a dead sampler restarts it.
            self._start()
        else:
            self._send_unsent()

    def oldest_request(self) -> int | None:
        """Number of the request that the sampler is at, ``None`` if there is none."""
        return next(iter(self._open), None)

    def answer(self, number: int, reply: Reply) -> bool:
        """
        Note that a request was answered.

        :return: whether the caller gets the answer. Otherwise it is no longer of interest, was part of setting up a new
            sampler, or the next sampler answers
        """
        self._heard_at = time.monotonic()
        request = self._open.get(number)
        if request is None or self._failure is not None:
            return False
        is_preparation = number in self._preparing
        if isinstance(reply, Failure) and (request.failure_ends_sampler or is_preparation):
            self._fail(reply, END_TIMEOUT if request.failure_ends_sampler else 0.0)
            return False
        self._close_until(number)
        if isinstance(reply, Result) and not is_preparation:
            self._setup.note(request, reply.value)
        return not is_preparation

    def note_steps(self, reports: Sequence[ChunkReport]) -> None:
        """Note what the sampler has collected in real time."""
        self._heard_at = time.monotonic()
        self._setup.note_steps(reports)

    @property
    def is_driving(self) -> bool:
        """Whether it collects in real time."""
        return self._setup.is_driving

    def end_drive(self) -> None:
        """Note that it collects in real time no longer."""
        self._setup.end_drive()

    def fail(self, failure: Failure) -> None:
        """Note a failure that answers no request. The sampler ends by itself, and has closed its environments."""
        self._fail(failure, END_TIMEOUT)

    def kill(self, reason: str) -> None:
        """End the sampler. The reason is as in "Sampler 3 hung"."""
        if self.state in (State.RUNNING, State.FAILED):
            self.state, self._reason_to_kill = State.KILLED, reason
            self._samplers.kill(self.sampler)

    def note_death(self, death: Death) -> Death:
        """Note how the sampler died. Returns the same, with what the sampler was doing."""
        failure, reason, activity = self._failure, self._reason_to_kill, self.activity
        self.state, self.due_at = State.DEAD, NEVER
        self._failure = self._reason_to_kill = None
        for number in self._preparing:
            self._open.pop(number, None)
        self._preparing.clear()
        if failure is not None:
            return Death(self.sampler, f"failed while {failure.summary}", failure.traceback, failure)
        if reason is not None:
            return replace(death, how=reason, hung=True)
        return replace(death, how=f"{death.how} while {activity}")

    def take_lost(self) -> list[int]:
        """Numbers of what was asked of the dead sampler and cannot be repeated; forgotten from now on."""
        lost = [number for number, request in self._open.items() if not request.can_be_repeated]
        for number in lost:
            del self._open[number]
        return lost

    def forget(self) -> None:
        """Have no more interest in what was asked until now."""
        self._open.clear()
        self._unsent.clear()

    def keep_up(self, now: float) -> None:
        """Do what is due."""
        # Not when something is answered: an error in sending would lose the answer.
        self._send_unsent()
        if now < self.due_at:
            return
        if self.state is State.DEAD:
            self._start()
        else:
            self.due_at = NEVER
            self.kill("did not end")

    def _fail(self, failure: Failure, seconds_to_end: float) -> None:
        self._failure = failure
        self.due_at = time.monotonic() + seconds_to_end
        if self.state is State.RUNNING:
            self.state = State.FAILED

    def _close_until(self, number: int) -> None:
        """Take a request off the list, and those before it: they were answered before, but Ctrl-C kept it from us."""
        while number in self._open:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._preparing.discard(oldest)

    def _start(self) -> None:
        try:
            self._samplers.start(self.sampler)
        except SamplerError:
            # They are closed.
            raise
        except Exception as error:
            # No process is left, say. That counts as a death, and the next attempt follows as after any other.
            self._deaths.append(Death(self.sampler, f"could not be started ({type(error).__name__}: {error})"))
            return
        self.incarnation += 1
        preparations = {next(self._numbers): request for request in self._setup.for_successor(self.incarnation)}
        self._preparing = set(preparations)
        self._open = {**preparations, **self._open}
        self._unsent = deque(self._open)
        self.state, self.due_at = State.RUNNING, NEVER
        self._heard_at = time.monotonic()
        self._send_unsent()

    def _send_unsent(self) -> None:
        """Send what has not been sent, as far as there is room. When the sampler answers something, there is more."""
        while self._unsent and self.state is not State.DEAD:
            number = self._unsent[0]
            try:
                if not self._samplers.send(self.sampler, number, self._open[number]):
                    return
            except BaseException:
                # It cannot be pickled, say. No answer will come.
                self._unsent.popleft()
                self._open.pop(number, None)
                raise
            self._unsent.popleft()
