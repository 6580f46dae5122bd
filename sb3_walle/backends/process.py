"""Samplers in processes of their own on this machine, over shared memory."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.fork_server import Fork, Preload
from sb3_walle.backends.protocol import Delivery
from sb3_walle.samplers.errors import SamplerError
from sb3_walle.samplers.requests import CloseEnvs, Request

# Requests are small and few; if a sampler's mailbox is full for that long, it has stopped reading.
SEND_TIMEOUT = 60.0
# Time between two attempts to put something into a full mailbox.
FULL_MAILBOX_PAUSE = 0.01
# Time to close environments before samplers are killed.
CLOSE_TIMEOUT = 2.0
# Time between a dead sampler's hanging up and the report of its exit code.
EXIT_CODE_TIMEOUT = 5.0
# Samplers get the time that the learner leaves. With 10 of them on 2 cores, an update takes as long as without them;
# at niceness 10 it takes up to a half longer, at 0 twice as long.
NICENESS = 19

# Stands for the fork server where others stand for the number of a sampler.
_SERVER = -1
# Number of a request whose reply nobody waits for.
_NOBODY = -1

# The user's main module is not part of it: samplers never run it.
_SERVER_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from sb3_walle.backends.fork_server import main; main(int(sys.argv[1]))"
)
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


class ProcessBackend:
    """
    N processes, forked from one that has imported what they need.

    They compute with one thread each, and CUDA is hidden from them: ten of them would otherwise fight for the cores,
    and fill the GPU's memory with their contexts.

    :param n_samplers: number of samplers
    :param preload: names of modules to import before forking
    :param niceness: how much samplers give way to other processes, as in ``os.nice``
    """

    def __init__(self, n_samplers: int, preload: Iterable[str] = (), niceness: int = NICENESS) -> None:
        self.n_samplers = self.n_processes = n_samplers
        self._pool = _Pool(n_samplers, tuple(preload), niceness)
        self._replies: deque[Delivery] = deque()
        # Also runs when this object is garbage, and at the end of the interpreter.
        self._finalizer = weakref.finalize(self, self._pool.close)

    def send(self, sampler: int, number: int, request: Request) -> None:
        """
        :param sampler: number of the sampler
        :param number: number of the request
        :param request: what to do
        :raises SamplerError: if the sampler is dead, or has stopped reading
        """
        self._replies.extend(self._pool.send(sampler, number, request))

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """
        :param timeout: longest wait in seconds, ``None`` to wait for as long as all samplers live
        :return: the reply; ``None`` if the time is over
        :raises SamplerError: if a sampler died
        """
        if not self._replies:
            self._replies.extend(self._pool.receive(timeout))
        return self._replies.popleft() if self._replies else None

    def close(self) -> None:
        """End all samplers. Their environments get a moment to close; then the processes are killed."""
        self._finalizer()


class _Pool:
    """The processes and the channels to them. Separate from the backend so that a finalizer can hold on to it."""

    def __init__(self, n_samplers: int, preload: tuple[str, ...], niceness: int) -> None:
        self._owner = os.getpid()
        self._closed = False
        self._exit_codes: dict[int, int] = {}
        self._channels: list[Channel] = []
        self._selector = selectors.DefaultSelector()
        self._server_channel, server_end = Channel.pair(SEND_TIMEOUT)
        self._server = _start_server(server_end)
        _pools.add(self)
        try:
            self._selector.register(self._server_channel, selectors.EVENT_READ, _SERVER)
            self._server_channel.send(Preload(preload))
            for sampler in range(n_samplers):
                self._start_sampler(sampler, niceness)
        except BaseException:
            self.close()
            raise

    def send(self, sampler: int, number: int, request: Request) -> list[Delivery]:
        """
        Send a request. Returns the replies that were taken in because the sampler's mailbox was full: a sampler that
        is itself waiting for its replies to be taken does not read.
        """
        self._check_usable()
        arrived: list[Delivery] = []
        deadline = time.monotonic() + SEND_TIMEOUT
        while True:
            try:
                self._channels[sampler].send((number, request))
                return arrived
            except ChannelClosedError as error:
                raise self._death(sampler) from error
            except BlockingIOError as error:
                replies = self.receive(FULL_MAILBOX_PAUSE)
                if replies:
                    arrived += replies
                    deadline = time.monotonic() + SEND_TIMEOUT
                elif time.monotonic() > deadline:
                    raise SamplerError(
                        f"Sampler {sampler} has not read its messages for {SEND_TIMEOUT:.0f} s: "
                        "one of its environments hangs"
                    ) from error

    def receive(self, timeout: float | None) -> list[Delivery]:
        self._check_usable()
        replies: list[Delivery] = []
        hung_up = []
        for key, _ in self._selector.select(timeout):
            try:
                message = key.fileobj.receive()  # type: ignore[union-attr]
            except ChannelClosedError:
                hung_up.append(key.data)
                continue
            if key.data == _SERVER:
                # The sampler's own channel hangs up as well, after the last of its replies.
                self._exit_codes[message.sampler] = message.exit_code
            else:
                replies.append(Delivery(key.data, *message))
        # What was finished before a death is delivered first. The death is found again at the next call.
        if hung_up and not replies:
            raise self._death(hung_up[0])
        return replies

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        _pools.discard(self)
        try:
            if os.getpid() == self._owner:
                self._close_samplers()
        finally:
            self.close_descriptors()
            if os.getpid() == self._owner:
                _wait_for(self._server)

    def close_descriptors(self) -> None:
        """Hang up. The fork server then kills the samplers that are left, and ends."""
        self._selector.close()
        for channel in (self._server_channel, *self._channels):
            channel.close()

    def _start_sampler(self, sampler: int, niceness: int) -> None:
        channel, sampler_end = Channel.pair(timeout=0.0)
        self._channels.append(channel)
        self._selector.register(channel, selectors.EVENT_READ, sampler)
        with sampler_end:
            self._server_channel.send(Fork(sampler, sampler_end, niceness))

    def _check_usable(self) -> None:
        if self._closed:
            raise SamplerError("The samplers are closed. Make new ones, and give them to a model with set_env().")
        if os.getpid() != self._owner:
            raise SamplerError("The samplers belong to the process that this one was forked from")

    def _close_samplers(self) -> None:
        """Let the samplers close their environments, for as long as one is ready to wait for that."""
        waiting = {}
        for sampler, channel in enumerate(self._channels):
            # A sampler that is dead or does not listen is left to the fork server.
            with contextlib.suppress(ChannelClosedError, BlockingIOError):
                channel.send((_NOBODY, CloseEnvs()))
                waiting[sampler] = channel
        self._selector.unregister(self._server_channel)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        while waiting and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                try:
                    key.fileobj.receive()  # type: ignore[union-attr]
                except ChannelClosedError:
                    self._selector.unregister(key.fileobj)
                    waiting.pop(key.data, None)

    def _death(self, who: int) -> SamplerError:
        if who == _SERVER:
            exit_code = self._server.wait(EXIT_CODE_TIMEOUT)
            return SamplerError(f"The process that the samplers are forked from {_describe(exit_code)}")
        self._wait_for_exit_code(who)
        return SamplerError(f"Sampler {who} {_describe(self._exit_codes.get(who))}")

    def _wait_for_exit_code(self, sampler: int) -> None:
        deadline = time.monotonic() + EXIT_CODE_TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(self._server_channel, selectors.EVENT_READ)
            while sampler not in self._exit_codes and (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    try:
                        message = self._server_channel.receive()
                    except ChannelClosedError:
                        return
                    self._exit_codes[message.sampler] = message.exit_code


_pools: "weakref.WeakSet[_Pool]" = weakref.WeakSet()


def _hang_up_in_child() -> None:
    """A forked copy of the learner must not keep the channels open: by their end, samplers see the learner's death."""
    for pool in list(_pools):
        pool.close_descriptors()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hang_up_in_child)


def _start_server(channel_end: socket.socket) -> subprocess.Popen:
    """Start the process that samplers are forked from. Its end of the channel is closed here."""
    # It inherits the blocked signal, so that Ctrl-C cannot hit it before it gets to ignore Ctrl-C.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with channel_end:
            return subprocess.Popen(
                [sys.executable, "-c", _SERVER_PROGRAM, str(channel_end.fileno()), json.dumps(sys.path)],
                pass_fds=[channel_end.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_SINGLE_THREADED, "CUDA_VISIBLE_DEVICES": ""},
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _wait_for(server: subprocess.Popen) -> None:
    """The server ends when it finds that the learner has hung up."""
    try:
        server.wait(EXIT_CODE_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _describe(exit_code: int | None) -> str:
    if exit_code is None:
        return "died"
    if exit_code < 0:
        return f"was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"exited with code {exit_code}"
