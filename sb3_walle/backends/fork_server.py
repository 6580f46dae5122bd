"""
The process that samplers are forked from.

It imports what they need once, so that ten samplers start in the time and memory of one. It holds no environment, no
policy and no thread, so that forking from it is safe while the learner's process does anything. It ends its
samplers when the learner dies, and tells the learner when and how a sampler died.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.death import Death, how_it_ended, readable
from sb3_walle.backends.sampler_process import (
    LEARNER_IS_DEAD,
    ORPHAN_TIMEOUT,
    die_with,
    run_sampler,
    survive_parent,
)
from sb3_walle.transport.pulse import PulseBoard
from sb3_walle.transport.shared_memory import SharedMemory, anonymous_file

# Time for a sampler that hangs to say where, before it is killed.
LAST_WORDS_TIMEOUT = 0.5
MAX_LAST_WORDS = 16_384
# Keys in a terminal, its closing, and a signal to a whole group of processes reach this one, too. The learner decides
# what happens then; and if it dies, this process still has to end what the environments have started.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


@dataclass(frozen=True)
class Preload:
    """
    First message to the server.

    :param modules: names of modules that samplers are going to import
    :param pulses: where samplers note that their environments begin a step; ``None`` where no step is timed
    """

    modules: tuple[str, ...]
    pulses: SharedMemory | None


@dataclass(frozen=True)
class Fork:
    """Start a sampler, with its end of its channel to the learner."""

    sampler: int
    channel: socket.socket


@dataclass(frozen=True)
class Kill:
    """End a sampler that does not end by itself."""

    sampler: int


@dataclass(frozen=True)
class EndAll:
    """End all samplers that have not ended by themselves."""


@dataclass(frozen=True)
class _Child:
    """A sampler that lives, and the file that the interpreter writes to when the process crashes."""

    sampler: int
    last_words: int


class ForkServer:
    """Forks samplers as the learner asks at the other end of the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._children: dict[int, _Child] = {}
        self._pulses: PulseBoard | None = None
        # A dead child makes the kernel write to this pipe, which is something that one can wait for.
        self._wakeup, self._wakeup_end = os.pipe()
        for end in (self._wakeup, self._wakeup_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in IGNORED_SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def serve(self) -> None:
        """Start samplers and report their deaths until the learner hangs up; then end those that are left."""
        try:
            first: Preload = self._channel.receive()
            self._pulses = None if first.pulses is None else PulseBoard(first.pulses)
            # Nothing else would end it in the middle of an import.
            die_with(os.getppid())
            # Modules are no garbage: looking for some takes a tenth of the time of importing torch.
            gc.disable()
            _import(first.modules)
            survive_parent()
            # All samplers share what exists by now until it is written to, as a garbage collection would.
            gc.collect()
            gc.freeze()
            gc.enable()
            while True:
                ready = {key.fileobj for key, _ in self._selector.select()}
                if self._wakeup in ready:
                    self._report_deaths()
                if self._channel in ready:
                    self._carry_out(self._channel.receive())
        except ChannelClosedError:
            self._await_orphans()
            self._end_samplers()

    def _carry_out(self, request: Fork | Kill | EndAll) -> None:
        if isinstance(request, EndAll):
            self._end_samplers()
            return
        if isinstance(request, Kill):
            self._kill(request.sampler)
            return
        with request.channel:
            try:
                self._fork(request)
            except OSError as error:
                # No process or no memory is left for it. The others do not suffer from that.
                self._channel.send(Death(request.sampler, f"could not be started ({error})"))

    def _fork(self, request: Fork) -> None:
        server, last_words = os.getpid(), anonymous_file()
        try:
            pid = os.fork()
        except OSError:
            os.close(last_words)
            raise
        if not pid:
            self._become_sampler(request, server, last_words)
        self._children[pid] = _Child(request.sampler, last_words)

    def _become_sampler(self, request: Fork, server: int, last_words: int) -> NoReturn:
        exit_code = 1
        try:
            # In a group with the processes that its environments start, so that they do not outlive it.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for handled in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(handled, signal.SIG_DFL)
            faulthandler.enable(last_words, all_threads=False)
            self._close_in_child()
            pulse = None if self._pulses is None else self._pulses.pulse(request.sampler)
            run_sampler(request.sampler, Channel(request.channel), server, pulse)
            exit_code = 0
        except BaseException:
            os.write(last_words, traceback.format_exc().encode())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit(): what the server registered to run at its end is not for its children.
            os._exit(exit_code)

    def _close_in_child(self) -> None:
        self._selector.close()
        self._channel.close()
        for descriptor in (self._wakeup, self._wakeup_end, *(child.last_words for child in self._children.values())):
            os.close(descriptor)

    def _report_deaths(self) -> None:
        for child, exit_code in self._take_dead():
            self._channel.send(Death(child.sampler, how_it_ended(exit_code), readable(_read(child.last_words))))

    def _take_dead(self) -> Iterator[tuple[_Child, int]]:
        """The samplers that have died, and their exit codes."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 65_536)
        while self._children:
            # The number of a process is not given to another one until it has been waited for.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return
            _kill_group(found.si_pid)
            _, status = os.waitpid(found.si_pid, 0)
            child = self._children.pop(found.si_pid, None)
            if child is not None:
                yield child, os.waitstatus_to_exitcode(status)

    def _kill(self, sampler: int) -> None:
        for pid in [pid for pid, child in self._children.items() if child.sampler == sampler]:
            # The interpreter then writes down where it is, even if it is in the middle of a native function.
            os.kill(pid, signal.SIGABRT)
            poll = select.poll()
            poll.register(self._wakeup, select.POLLIN)
            poll.poll(LAST_WORDS_TIMEOUT * 1000)
            os.kill(pid, signal.SIGKILL)

    def _await_orphans(self) -> None:
        """The learner is dead: let samplers end by themselves that have a plant to look after, and all others now."""
        for pid in self._children:
            os.kill(pid, LEARNER_IS_DEAD)
            # In case that it is stopped.
            os.kill(pid, signal.SIGCONT)
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        deadline = time.monotonic() + ORPHAN_TIMEOUT
        while self._children and (left := deadline - time.monotonic()) > 0:
            poll.poll(1000 * left)
            for child, _ in self._take_dead():
                os.close(child.last_words)

    def _end_samplers(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            _kill_group(pid)
            os.waitpid(pid, 0)
        self._children.clear()


def _kill_group(pid: int) -> None:
    """End the processes that a sampler has started, whether or not it lives."""
    # It may not have come as far as to have a group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _read(file: int) -> str:
    text = os.pread(file, MAX_LAST_WORDS, 0).decode(errors="replace")
    os.close(file)
    return text.strip()


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            # A sampler that needs the module imports it again, and reports the error with its traceback.
            continue


def main(fd: int) -> None:
    """Run the server, with its end of its channel to the learner, until the learner hangs up."""
    ForkServer(Channel(socket.socket(fileno=fd))).serve()
    # What modules have registered runs; then the process ends without taking apart what it has imported. With torch,
    # that takes longer than everything else in closing, and the learner waits for it.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
