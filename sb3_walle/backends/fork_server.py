"""
The process that samplers are forked from.

It imports what they need once, so that ten samplers start in the time and memory of one. It holds no environment, no
policy and no thread, which is what makes forking from it safe, whatever the learner's process is doing. It ends its
samplers when the learner dies, and tells the learner when a sampler dies.
"""

import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.sampler_process import run_sampler


@dataclass(frozen=True)
class Preload:
    """
    First message to the server.

    :param modules: names of modules that samplers are going to import
    """

    modules: tuple[str, ...]


@dataclass(frozen=True)
class Fork:
    """
    Start a sampler.

    :param sampler: number of the sampler
    :param channel: the sampler's end of its channel to the learner
    :param niceness: how much the sampler gives way to other processes, as in ``os.nice``
    """

    sampler: int
    channel: socket.socket
    niceness: int


@dataclass(frozen=True)
class Exited:
    """
    A sampler is dead.

    :param sampler: number of the sampler
    :param exit_code: its exit code, or minus the number of the signal that killed it
    """

    sampler: int
    exit_code: int


class ForkServer:
    """
    :param channel: this process's end of its channel to the learner
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._samplers: dict[int, int] = {}
        # A dead child makes the kernel write to this pipe, which is something that one can wait for.
        self._wakeup, wakeup = os.pipe()
        for end in (self._wakeup, wakeup):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Ctrl-C in a terminal reaches every process of the group; what happens then is the learner's decision.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def serve(self) -> None:
        """Start samplers and report their deaths until the learner hangs up; then end those that are left."""
        try:
            _import(self._channel.receive().modules)
            # What exists by now is shared with all samplers for as long as nobody writes to it, as a collection would.
            gc.collect()
            gc.freeze()
            while True:
                ready = {key.fileobj for key, _ in self._selector.select()}
                if self._wakeup in ready:
                    self._report_deaths()
                if self._channel in ready:
                    self._fork(self._channel.receive())
        except ChannelClosedError:
            self._end_samplers()

    def _fork(self, request: Fork) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid:
            request.channel.close()
            self._samplers[pid] = request.sampler
        else:
            self._become_sampler(request, server)

    def _become_sampler(self, request: Fork, server: int) -> NoReturn:
        exit_code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._channel.close()
            os.nice(request.niceness)
            run_sampler(request.sampler, Channel(request.channel), server)
            exit_code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit(): what the server registered to run at its end is not for its children.
            os._exit(exit_code)

    def _report_deaths(self) -> None:
        os.read(self._wakeup, 65_536)
        while self._samplers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self._samplers:
                self._channel.send(Exited(self._samplers.pop(pid), os.waitstatus_to_exitcode(status)))

    def _end_samplers(self) -> None:
        for pid in self._samplers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._samplers:
            os.waitpid(pid, 0)


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            # Whoever really needs the module imports it again, in a sampler, and gets the error with its traceback.
            continue


def main(fd: int) -> None:
    """
    Run the server until the learner hangs up.

    :param fd: file descriptor of this process's end of its channel to the learner
    """
    ForkServer(Channel(socket.socket(fileno=fd))).serve()
