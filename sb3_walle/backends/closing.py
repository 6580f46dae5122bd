"""The end of samplers in processes: each finishes its step and closes its environments, however long that takes."""

import contextlib
import math
import selectors
import time
from collections.abc import Callable, Iterable, Mapping

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.protocol import UNASKED
from sb3_walle.backends.server_handle import ServerHandle
from sb3_walle.backends.supervision import hung, warn
from sb3_walle.samplers.errors import Failure, SamplerError
from sb3_walle.samplers.requests import CloseEnvs, Reply

NOTICE_AFTER = 5.0
# Another thread that was talking to the samplers may have received what this one waits for.
LONGEST_PAUSE = 1.0
# Number of the request to close.
_CLOSE = -1


class Closing:
    """
    Asks samplers to close their environments, and waits until their processes have ended.

    :param channels: the channel of each sampler that lives
    :param selector: waits for these channels and for the server
    :param seconds_at_step: for how many seconds a sampler has been making its present step
    :param step_timeout: longest time in seconds that a step may take before its sampler is killed, ``None`` for any
    """

    def __init__(
        self,
        channels: Mapping[int, Channel],
        server: ServerHandle,
        selector: selectors.BaseSelector,
        seconds_at_step: Callable[[int], float],
        step_timeout: float | None,
    ) -> None:
        self._channels = channels
        self._server = server
        self._selector = selector
        self._seconds_at_step = seconds_at_step
        self._step_timeout = math.inf if step_timeout is None else step_timeout
        self._waiting = set(channels)
        # Those whose mailbox was full. They have room when they have answered something.
        self._unasked = set(channels)
        self._failures: list[SamplerError] = []

    def wait(self, timeout: float) -> None:
        """Wait for all of them, at most for that many seconds. Warns if that takes long, and of what went wrong."""
        now = time.monotonic()
        ends_at, notice_at = now + timeout, now + NOTICE_AFTER
        while True:
            self._waiting &= self._channels.keys() - self._server.dead
            self._ask()
            now = time.monotonic()
            if not self._waiting or now >= ends_at:
                break
            if now >= notice_at:
                notice_at = math.inf
                warn(
                    f"Waiting for {_names(self._waiting)} to finish a step and to close the environments. Ctrl-C ends "
                    "the wait and kills them; close_timeout does so after that many seconds."
                )
            self._end_hung()
            for key, _ in self._selector.select(min(ends_at - now, LONGEST_PAUSE)):
                self._hear(key)
        for sampler in self._channels:
            self._hear_rest(sampler)
        if self._waiting:
            warn(f"Killed after {timeout:g} s without having closed the environments: {_names(self._waiting)}.")
        if self._failures:
            warn(str(self._failures[0]))

    def _ask(self) -> None:
        for sampler in self._unasked & self._waiting:
            # One that is dead is found when its channel is read.
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ChannelClosedError):
                    self._channels[sampler].send((_CLOSE, CloseEnvs()))
                self._unasked.discard(sampler)

    def _hear(self, key: selectors.SelectorKey) -> None:
        """Take in one message."""
        try:
            if key.fileobj is self._server:
                self._server.take_in_news()
                return
            self._note(key.data, *key.fileobj.receive())  # type: ignore[union-attr]
        except ChannelClosedError:
            self._selector.unregister(key.fileobj)
            # The kernel kills all samplers with the server.
            self._waiting = set() if key.fileobj is self._server else self._waiting - {key.data}
        except Exception:
            # Another thread has received it, or it answers an earlier request and cannot be unpickled here.
            return

    def _hear_rest(self, sampler: int) -> None:
        """Take in what a sampler has told, which may be dead by now."""
        while True:
            try:
                self._note(sampler, *self._channels[sampler].receive())
            except OSError:
                # There is nothing more.
                return
            except Exception:
                # It answers an earlier request and cannot be unpickled here.
                continue

    def _note(self, sampler: int, number: int, reply: Reply) -> None:
        # Without being asked, a sampler tells that it could not give its plant the fallback action.
        if number in (_CLOSE, UNASKED) and isinstance(reply, Failure):
            self._failures.append(reply.to_error(sampler))

    def _end_hung(self) -> None:
        for sampler in self._waiting:
            if self._seconds_at_step(sampler) > self._step_timeout:
                warn(f"Sampler {sampler} {hung(self._step_timeout)}")
                self._server.kill(sampler)
                self._waiting = self._waiting - {sampler}


def _names(samplers: Iterable[int]) -> str:
    return ", ".join(f"sampler {sampler}" for sampler in sorted(samplers))
