"""The learner's end of the process that samplers are forked from."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Set

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.death import Death, how_it_ended
from sb3_walle.backends.fork_server import IGNORED_SIGNALS, EndAll, Fork, Kill, Preload
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


class ServerHandle:
    """
    Starts the server and talks to it.

    :param modules: names of modules to import before forking
    :param pulses: where samplers note that their environments begin a step, ``None`` where no step is timed
    :param gives_way: whether the server, its samplers, and what their environments start are a session of their own
    """

    def __init__(self, modules: Iterable[str], pulses: SharedMemory | None, gives_way: bool = True) -> None:
        self._deaths: dict[int, Death] = {}
        self._channel, server_end = Channel.pair(SEND_TIMEOUT)
        self._process = _start(server_end, gives_way)
        self._channel.send(Preload(tuple(modules), pulses))

    def fileno(self) -> int:
        """File descriptor that is ready when a sampler has died, or the server itself."""
        return self._channel.fileno()

    def fork(self, sampler: int) -> Channel:
        """
        Start a sampler.

        :return: this process's end of the channel to it
        :raises ChannelClosedError: if the server is dead
        """
        channel, sampler_end = Channel.pair(timeout=0.0)
        try:
            with sampler_end:
                self._deaths.pop(sampler, None)
                self._channel.send(Fork(sampler, sampler_end))
        except BaseException:
            channel.close()
            raise
        return channel

    def kill(self, sampler: int) -> None:
        """
        End a sampler.

        :raises ChannelClosedError: if the server is dead
        """
        self._channel.send(Kill(sampler))

    @property
    def dead(self) -> Set[int]:
        """Numbers of the samplers that are known to be dead, until :meth:`death_of` is asked for them."""
        return self._deaths.keys()

    def take_in_news(self) -> None:
        """
        Note which samplers have died, as far as the server has told.

        :raises ChannelClosedError: if the server itself is dead
        """
        while self._channel.wait(0.0):
            self._hear()

    def death_of(self, sampler: int) -> Death:
        """How a sampler ended that has hung up."""
        try:
            if not self._wait_for_death(sampler):
                # It has closed its channel and still runs.
                self.kill(sampler)
                self._wait_for_death(sampler)
        except ChannelClosedError:
            return Death(sampler, f"died with the process that samplers are forked from, which {self._own_end()}")
        return self._deaths.pop(sampler, Death(sampler, "hung up"))

    def end_samplers(self) -> None:
        """Have the server kill the samplers that are left. Does not wait for it."""
        # A dead server has none.
        with contextlib.suppress(ChannelClosedError):
            self._channel.send(EndAll())

    def hang_up(self) -> None:
        """Have the server end the samplers that are left, when their plants rest, and itself. Does not wait for it."""
        self._channel.close()

    def wait(self) -> None:
        """Wait until the server has ended, after :meth:`hang_up`."""
        try:
            self._process.wait(EXIT_CODE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_for_death(self, sampler: int) -> bool:
        """Wait until the server has told how a sampler ended, which it does in a moment if it has not done so."""
        deadline = time.monotonic() + EXIT_CODE_TIMEOUT
        while sampler not in self._deaths and (left := deadline - time.monotonic()) > 0:
            if self._channel.wait(left):
                self._hear()
        return sampler in self._deaths

    def _hear(self) -> None:
        death: Death = self._channel.receive()
        self._deaths[death.sampler] = death

    def _own_end(self) -> str:
        try:
            return how_it_ended(self._process.wait(EXIT_CODE_TIMEOUT))
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
