"""Samplers in processes of their own on this machine, over shared memory."""

import contextlib
import math
import os
import selectors
import sys
import weakref
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.closing import Closing
from sb3_walle.backends.death import Death
from sb3_walle.backends.limits import available_cpus, check_descriptors
from sb3_walle.backends.protocol import UNREADABLE, Delivery, Event
from sb3_walle.backends.server_handle import ServerHandle
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.errors import CLOSED, Failure, SamplerError
from sb3_walle.samplers.requests import Request
from sb3_walle.termination import is_terminating
from sb3_walle.transport.memory_queues import QueuePlan, open_queues
from sb3_walle.transport.ports import LearnerQueues
from sb3_walle.transport.pulse import PulseBoard
from sb3_walle.transport.shared_memory import SharedMemory

# Time to close environments after SIGTERM: the scheduler that sends it kills the process soon.
TERMINATION_TIMEOUT = 5.0
# Time for a sampler to be gone after the process that it was forked from.
DEATH_TIMEOUT = 1.0

# Stands for the fork server where others stand for the number of a sampler.
_SERVER = -1


class ProcessBackend:
    """
    Processes of their own on this machine, forked from one that has imported what they need.

    They compute with one thread each, and CUDA is hidden from them: ten of them would otherwise share the cores among
    hundreds of threads, and fill the GPU's memory with their contexts.
    """

    shares_objects: ClassVar[bool] = False
    drives_plants: ClassVar[bool] = True

    def n_cpus(self) -> float:
        return available_cpus()

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> "ProcessSamplers":
        """
        :raises OSError: if this is not Linux, or if this process may not open as many file descriptors as that takes
        """
        if sys.platform != "linux":
            raise OSError(
                f'backend="process" needs Linux (anonymous shared memory, packet sockets), and this is {sys.platform}. '
                'Use backend="inline", which runs all environments in this process.'
            )
        check_descriptors(n_samplers)
        return ProcessSamplers(n_samplers, preload, supervision)


class ProcessSamplers:
    """
    The samplers' processes and the channels to them. Its methods are described in the protocol ``Samplers``.

    :param running: numbers of the samplers that are started here and now, by default all
    """

    is_closed_when_forgotten: ClassVar[bool] = True

    def __init__(
        self,
        n_samplers: int,
        preload: Iterable[str] = (),
        supervision: Supervision | None = None,
        running: Iterable[int] | None = None,
    ) -> None:
        self._closed = False
        self._owner = os.getpid()
        self.n_samplers = self.n_processes = n_samplers
        self._preload, self._supervision = tuple(preload), supervision or Supervision()
        self._pulse_memory = (
            None if self._supervision.step_timeout is None else SharedMemory(PulseBoard.nbytes(n_samplers))
        )
        self._pulses = None if self._pulse_memory is None else PulseBoard(self._pulse_memory)
        self._channels: dict[int, Channel] = {}
        self._events: deque[Event] = deque()
        self._selector = selectors.EpollSelector()
        self._server = self._new_server()
        _open_samplers.add(self)
        try:
            for sampler in range(n_samplers) if running is None else running:
                self.start(sampler)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """:return: file descriptor that is ready when there is something to receive"""
        return self._selector.fileno()

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        self._check_usable()
        return open_queues(plan, SharedMemory)

    def send(self, sampler: int, number: int, request: Request) -> bool:
        self._check_usable()
        channel = self._channels.get(sampler)
        if channel is None:
            self._tell_again_of_death(sampler)
            return True
        try:
            # If it is dead, that is found by receive().
            with contextlib.suppress(ChannelClosedError):
                channel.send((number, request), request.is_plain)
        except BlockingIOError:
            return False
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        self._check_usable()
        if not self._events:
            for key, _ in self._selector.select(timeout):
                if key.data == _SERVER:
                    self._take_server_news()
                elif key.data in self._channels:
                    self._take_reply(key.data)
            self._remove_dead()
        return self._events.popleft() if self._events else None

    def seconds_at_step(self, sampler: int) -> float:
        return 0.0 if self._pulses is None else self._pulses.seconds_at_step(sampler)

    def start(self, sampler: int) -> None:
        self._check_usable()
        if sampler in self._channels:
            # Ctrl-C has ended an attempt to start it, and the client does not know of it.
            self.kill(sampler)
            self._remove(sampler)
            self._events = deque(event for event in self._events if event.sampler != sampler)
        try:
            channel = self._server.fork(sampler)
        except ChannelClosedError:
            self._replace_server()
            channel = self._server.fork(sampler)
        self._channels[sampler] = channel
        self._selector.register(channel, selectors.EVENT_READ, sampler)

    def kill(self, sampler: int) -> None:
        # A dead server takes its samplers with it.
        with contextlib.suppress(ChannelClosedError):
            self._server.kill(sampler)

    def close(self, timeout: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        _open_samplers.discard(self)
        is_owner = os.getpid() == self._owner
        try:
            if is_owner:
                self._close_samplers(self._supervision.close_timeout if timeout is None else timeout)
        finally:
            if is_owner:
                self._server.end_samplers()
            self.close_descriptors()
            if is_owner:
                self._server.wait()

    def close_descriptors(self) -> None:
        """Hang up. The fork server then kills the samplers that are left, and ends."""
        self._selector.close()
        self._server.hang_up()
        for channel in self._channels.values():
            channel.close()

    def _new_server(self) -> ServerHandle:
        server = ServerHandle(self._preload, self._pulse_memory, self._supervision.samplers_give_way)
        self._selector.register(server, selectors.EVENT_READ, _SERVER)
        return server

    def _replace_server(self) -> None:
        self._remove_all()
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._server)
        self._server.hang_up()
        self._server.wait()
        self._server = self._new_server()

    def _take_reply(self, sampler: int) -> bool:
        """Receive one message of a sampler, or its death. Returns whether there was a message."""
        try:
            self._events.append(Delivery(sampler, *self._channels[sampler].receive()))
        except BlockingIOError:
            return False
        except ChannelClosedError:
            self._remove(sampler)
            return False
        except Exception as error:
            # Of a class that only the sampler can import, say.
            self._events.append(Delivery(sampler, UNREADABLE, Failure.of(error, "answering what cannot be read here")))
        return True

    def _take_server_news(self) -> None:
        try:
            self._server.take_in_news()
        except ChannelClosedError:
            self._selector.unregister(self._server)
            self._remove_all()

    def _remove_dead(self) -> None:
        """Samplers that are said to be dead, but have not hung up: a process that they have started has not either."""
        for sampler in self._server.dead & self._channels.keys():
            # What it finished is delivered first.
            while sampler in self._channels and self._take_reply(sampler):
                continue
            if sampler in self._channels:
                self._remove(sampler)

    def _remove_all(self) -> None:
        """
        The server is dead. Its samplers die with it, when their plants rest: wait until none of them can write to
        shared memory any more. Not all hang up: a process that an environment has forked may keep a channel open.
        """
        for channel in self._channels.values():
            channel.end_sending()
        for sampler, channel in list(self._channels.items()):
            while sampler in self._channels and channel.wait(DEATH_TIMEOUT):
                self._take_reply(sampler)
            if sampler in self._channels:
                self._remove(sampler)

    def _remove(self, sampler: int) -> None:
        death = self._server.death_of(sampler)
        channel = self._channels.pop(sampler)
        with contextlib.suppress(KeyError):
            self._selector.unregister(channel)
        channel.close()
        if self._pulses is not None:
            self._pulses.clear(sampler)
        self._events.append(death)

    def _tell_again_of_death(self, sampler: int) -> None:
        """A request to a dead sampler means that Ctrl-C has kept the news of its death from the client."""
        if not any(isinstance(event, Death) and event.sampler == sampler for event in self._events):
            self._events.append(Death(sampler, "died"))

    def _check_usable(self) -> None:
        if self._closed:
            raise SamplerError(CLOSED)
        if os.getpid() != self._owner:
            raise SamplerError("The samplers belong to the process that this one was forked from")

    def _close_samplers(self, timeout: float | None) -> None:
        longest = TERMINATION_TIMEOUT if is_terminating() else math.inf
        step_timeout = self._supervision.step_timeout
        closing = Closing(self._channels, self._server, self._selector, self.seconds_at_step, step_timeout)
        closing.wait(longest if timeout is None else min(timeout, longest))


_open_samplers: "weakref.WeakSet[ProcessSamplers]" = weakref.WeakSet()


def _hang_up_in_child() -> None:
    """A forked copy of the learner must not keep the channels open: by their end, samplers see the learner's death."""
    for samplers in list(_open_samplers):
        samplers.close_descriptors()


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_hang_up_in_child)
