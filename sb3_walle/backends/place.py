"""The place of one sampler, which others take when it dies."""

import math
import time
from collections import deque
from collections.abc import Iterator

from sb3_walle.backends.loss import Loss
from sb3_walle.backends.protocol import Death, Samplers
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import Reply, Request, Result
from sb3_walle.samplers.succession import Briefing

NEVER = math.inf
# Time for a sampler whose environment has failed to close it, before it is killed.
END_TIMEOUT = 2.0


class Place:
    """
    What was asked of the samplers in this place and not answered yet. A new sampler is first told what the ones before
    it were told, and then asked what they left undone.

    :param sampler: number of the sampler
    :param samplers: all samplers
    :param numbers: numbers for further requests
    """

    def __init__(self, sampler: int, samplers: Samplers, numbers: Iterator[int]) -> None:
        self.sampler = sampler
        self._samplers = samplers
        self._numbers = numbers
        self._briefing = Briefing()
        #: how many samplers have died here
        self.incarnation = 0
        # All requests that were not answered, in their order. Those that the mailbox had no room for are unsent, too.
        self._open: dict[int, Request] = {}
        self._unsent: deque[int] = deque()
        self._preparing: set[int] = set()
        self._is_dead = False
        #: when something is to be done about the sampler: start a new one, or kill one that does not end
        self.due_at = NEVER
        self._failure: Failure | None = None
        self._reason_to_kill: str | None = None
        self._is_killed = False
        self._heard_at = time.monotonic()

    @property
    def silent_since(self) -> float:
        """When the sampler was heard of last, if it has something to do; otherwise never."""
        return self._heard_at if self._open and not self._is_dead else NEVER

    @property
    def activity(self) -> str:
        """What the sampler is doing, as in "Sampler 3 was killed while ..."."""
        return next((request.summary for request in self._open.values()), "waiting for something to do")

    def send(self, number: int, request: Request) -> None:
        """
        :param number: number of the request
        :param request: what the sampler is to do
        """
        if not self._open:
            self._heard_at = time.monotonic()
        self._open[number] = request
        self._unsent.append(number)
        if self._is_dead and self.due_at == NEVER:
            # It died when nobody was to replace it. Whoever asks for something now, wants it replaced.
            self._start()
        else:
            self._send_unsent()

    def oldest_request(self) -> int | None:
        """:return: number of the request that the sampler is at, ``None`` if there is none"""
        return next(iter(self._open), None)

    def answer(self, number: int, reply: Reply) -> bool:
        """
        Note that a request was answered.

        :param number: its number
        :param reply: the answer
        :return: whether that is for whoever has asked. Otherwise it is no longer of interest, was part of telling a new
            sampler what it has to know, or another sampler is going to answer
        """
        self._heard_at = time.monotonic()
        request = self._open.get(number)
        if request is None or self._failure is not None:
            return False
        is_preparation = number in self._preparing
        if isinstance(reply, Failure) and (request.failure_ends_sampler or is_preparation):
            self._failure = reply
            self.due_at = time.monotonic() + (END_TIMEOUT if request.failure_ends_sampler else 0.0)
            return False
        self._close_until(number)
        if isinstance(reply, Result) and not is_preparation:
            self._briefing.note(request)
        return not is_preparation

    def kill(self, reason: str) -> None:
        """
        End the sampler.

        :param reason: why, as in "Sampler 3 hung"
        """
        if not self._is_killed and not self._is_dead:
            self._is_killed, self._reason_to_kill = True, reason
            self._samplers.kill(self.sampler)

    def bury(self, death: Death) -> Loss:
        """
        Note that the sampler is dead.

        :param death: how it died
        :return: the same, with what is known besides
        """
        failure, reason, activity = self._failure, self._reason_to_kill, self.activity
        self._is_dead, self.due_at = True, NEVER
        self._failure, self._reason_to_kill, self._is_killed = None, None, False
        for number in self._preparing:
            self._open.pop(number, None)
        self._preparing.clear()
        if failure is not None:
            return Loss(self.sampler, f"failed while {failure.summary}", failure.traceback, failure)
        if reason is not None:
            return Loss(self.sampler, reason, death.traceback, hung=True)
        return Loss(self.sampler, f"{death.how} while {activity}", death.traceback)

    def take_lost(self) -> list[int]:
        """
        :return: numbers of what was asked of the dead sampler and cannot be repeated; forgotten from now on
        """
        lost = [number for number, request in self._open.items() if not request.can_be_repeated]
        for number in lost:
            del self._open[number]
        return lost

    def forget(self) -> None:
        """Have no more interest in what was asked until now."""
        self._open.clear()
        self._unsent.clear()

    def keep_up(self, now: float) -> None:
        """
        Do what is due.

        :param now: the time
        """
        # Not when something is answered: an error in sending would cost somebody the answer.
        self._send_unsent()
        if now < self.due_at:
            return
        if self._is_dead:
            self._start()
        else:
            self.due_at = NEVER
            self.kill("did not end")

    def _close_until(self, number: int) -> None:
        """Take a request off the list, and those before it: they were answered before, but Ctrl-C kept it from us."""
        while number in self._open:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._preparing.discard(oldest)

    def _start(self) -> None:
        self._samplers.start(self.sampler)
        self.incarnation += 1
        preparations = {next(self._numbers): request for request in self._briefing.for_successor(self.incarnation)}
        self._preparing = set(preparations)
        self._open = {**preparations, **self._open}
        self._unsent = deque(self._open)
        self._is_dead, self.due_at = False, NEVER
        self._heard_at = time.monotonic()
        self._send_unsent()

    def _send_unsent(self) -> None:
        """Send what has not been sent, as far as there is room. When the sampler answers something, there is more."""
        while self._unsent and not self._is_dead:
            number = self._unsent[0]
            try:
                if not self._samplers.send(self.sampler, number, self._open[number]):
                    return
            except BaseException:
                # It cannot be pickled, say. Nobody waits for an answer any more.
                self._unsent.popleft()
                self._open.pop(number, None)
                raise
            self._unsent.popleft()
