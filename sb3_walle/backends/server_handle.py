"""The learner's end of the process that samplers are forked from."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.fork_server import IGNORED_SIGNALS, Exited, Fork, Kill, Preload
from sb3_walle.backends.last_words import readable
from sb3_walle.transport.shared_memory import SharedMemory

# The server only ever does small things. If it does not read its messages for that long, something is badly wrong.
SEND_TIMEOUT = 60.0
# Time between a dead sampler's hanging up and the report of its exit code.
EXIT_CODE_TIMEOUT = 5.0

# The user's main module is not part of it: samplers never run it.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from sb3_walle.backends.fork_server import main; main(int(sys.argv[1]))"
)
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Ending:
    """
    How a process ended.

    :param how: as in "was killed by signal 11 (SIGSEGV)"
    :param last_words: where it was, as far as it could tell
    """

    how: str
    last_words: str = ""


class ServerHandle:
    """
    Starts the server and talks to it.

    :param modules: names of modules to import before forking
    :param pulses: where samplers note that their environments begin a step, ``None`` if nobody wants to know
    :param gives_way: whether the server, its samplers, and what their environments start are a session of their own
    """

    def __init__(self, modules: Iterable[str], pulses: SharedMemory | None, gives_way: bool = True) -> None:
        self._endings: dict[int, Ending] = {}
        self._channel, server_end = Channel.pair(SEND_TIMEOUT)
        self._process = _start(server_end, gives_way)
        self._channel.send(Preload(tuple(modules), pulses))

    def fileno(self) -> int:
        """:return: file descriptor that is ready when a sampler has died, or the server itself"""
        return self._channel.fileno()

    def fork(self, sampler: int) -> Channel:
        """
        Start a sampler.

        :param sampler: its number
        :return: this process's end of the channel to it
        :raises ChannelClosedError: if the server is dead
        """
        channel, sampler_end = Channel.pair(timeout=0.0)
        try:
            with sampler_end:
                self._endings.pop(sampler, None)
                self._channel.send(Fork(sampler, sampler_end))
        except BaseException:
            channel.close()
            raise
        return channel

    def kill(self, sampler: int) -> None:
        """
        End a sampler.

        :param sampler: its number
        :raises ChannelClosedError: if the server is dead
        """
        self._channel.send(Kill(sampler))

    @property
    def dead(self) -> Set[int]:
        """Numbers of the samplers that are known to be dead and whose ending nobody has asked for yet."""
        return self._endings.keys()

    def take_in_news(self) -> None:
        """
        Note which samplers have died, as far as the server has told.

        :raises ChannelClosedError: if the server itself is dead
        """
        while self._channel.wait(0.0):
            self._hear()

    def ending_of(self, sampler: int) -> Ending:
        """
        :param sampler: number of a sampler that has hung up
        :return: how it ended
        """
        try:
            if not self._wait_for_ending(sampler):
                # It has hung up and lives on. Nobody can have any use for it.
                self.kill(sampler)
                self._wait_for_ending(sampler)
        except ChannelClosedError:
            return Ending(f"died with the process that samplers are forked from, which {self._describe_end()}")
        return self._endings.pop(sampler, Ending("hung up"))

    def hang_up(self) -> None:
        """Have the server end the samplers that are left, and itself. Does not wait for it."""
        self._channel.close()

    def wait(self) -> None:
        """Wait until the server has ended, after :meth:`hang_up`."""
        try:
            self._process.wait(EXIT_CODE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_for_ending(self, sampler: int) -> bool:
        """Wait until the server has told how a sampler ended, which it does in a moment if it has not done so."""
        deadline = time.monotonic() + EXIT_CODE_TIMEOUT
        while sampler not in self._endings and (left := deadline - time.monotonic()) > 0:
            if self._channel.wait(left):
                self._hear()
        return sampler in self._endings

    def _hear(self) -> None:
        news: Exited = self._channel.receive()
        how = "did not start" if news.exit_code is None else _describe(news.exit_code)
        self._endings[news.sampler] = Ending(how, readable(news.last_words))

    def _describe_end(self) -> str:
        try:
            return _describe(self._process.wait(EXIT_CODE_TIMEOUT))
        except subprocess.TimeoutExpired:
            return "hung up"


def _start(channel_end: socket.socket, in_own_session: bool) -> subprocess.Popen:
    """Start the server. Its end of the channel is closed here."""
    # Linux shares the CPUs evenly between sessions, and each session's share between its processes (autogroup, see
    # sched(7)). So the learner has as much of them as all its samplers together, however many those are, and other
    # sessions have what they had. There is nothing to take back, and it takes no privilege. Priorities would be worse:
    # at niceness 19 samplers give way to the whole machine, and an ordinary user cannot undo that.
    # It inherits the blocked signals, so that Ctrl-C cannot hit it before it gets to ignore Ctrl-C.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        with channel_end:
            return subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(channel_end.fileno()), json.dumps(sys.path)],
                pass_fds=[channel_end.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=in_own_session,
                env={**os.environ, **_SINGLE_THREADED, "CUDA_VISIBLE_DEVICES": ""},
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    number = -exit_code
    # Real-time signals have no name.
    name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
    hint = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({name}{hint})"
