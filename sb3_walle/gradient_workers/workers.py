"""The learner's end of its gradient workers: starts them, has them compute, and replaces those that die."""

import contextlib
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.death import Death
from sb3_walle.backends.server_handle import ServerHandle
from sb3_walle.gradient_workers.job import Job
from sb3_walle.gradient_workers.line import Line, LineClosedError, LineSilentError
from sb3_walle.gradient_workers.worker import run_worker
from sb3_walle.user_warning import warn_user

_MODULES = ("torch", "sb3_walle.gradient_workers.worker")

# A worker answers within milliseconds, unless it is stopped, or the machine has no time for it.
PATIENCE_SECONDS = 60.0

#: what a worker does, from its rank and its end of the line to the learner
MakeJob: TypeAlias = Callable[[int, socket.socket], Job]


@dataclass
class _Worker:
    """
    A process that was started.

    :param channel: carries its job; the process ends when this end is closed
    :param line: to keep in step with it
    :param is_ready: whether it has loaded its programs
    :param is_busy: whether it was asked for something, and has not said that it is done
    """

    channel: Channel
    line: Line
    is_ready: bool = False
    is_busy: bool = False

    def close(self) -> None:
        self.channel.close()
        self.line.close()


class GradientWorkers:
    """
    Processes that make the same calls as the learner, each with its own share of the rows. The learner has rank 0.

    The learner never waits for a worker that is not ready, or dead. It makes the worker's calls itself.

    :param n_workers: number of processes
    """

    def __init__(self, n_workers: int) -> None:
        self.ranks = range(1, n_workers + 1)
        #: number of workers that have died, each of which has a successor
        self.n_restarts = 0
        #: number of workers that were ready when :meth:`start` was called last
        self.n_ready_at_start = 0
        self._server: ServerHandle | None = None
        self._workers: dict[int, _Worker] = {}
        self._dead: set[int] = set()
        _open_workers.add(self)

    def prepare(self) -> ServerHandle:
        """Start the process that workers are forked from, unless there is one. It imports torch in the meantime."""
        if self._server is None:
            self._server = ServerHandle(_MODULES, pulses=None, run=run_worker)
        return self._server

    def start(self, make_job: MakeJob) -> None:
        """
        Start the workers that are missing, without waiting for them.

        :param make_job: makes their jobs
        """
        self.prepare()
        for rank in list(self._workers):
            self._look_at(rank)
        self._take_in_deaths()
        self.n_ready_at_start = sum(worker.is_ready for worker in self._workers.values())
        for rank in self.ranks:
            if rank not in self._workers:
                self._start(rank, make_job)

    def wait_until_ready(self) -> None:
        """Wait until the workers that were started are ready, or dead."""
        for rank, worker in list(self._workers.items()):
            with self._death_noticed(rank):
                while not worker.is_ready:
                    worker.is_ready = worker.line.received() is not None
                    time.sleep(0.001)

    def ask(self, call: int) -> list[int]:
        """
        Have the workers make a call.

        :param call: its number
        :return: ranks of the workers that make it
        """
        for rank, worker in list(self._workers.items()):
            if worker.is_ready:
                worker.is_busy = True
                with self._death_noticed(rank):
                    worker.line.send(call)
        return self.busy

    @property
    def busy(self) -> list[int]:
        """Ranks of the workers that have not said yet that they are done."""
        return [rank for rank, worker in self._workers.items() if worker.is_busy]

    def has_done(self, rank: int) -> bool:
        """
        Wait for a worker that was asked. Returns whether it has made its call; if not, it is dead. One that does not
        answer is ended.
        """
        worker = self._workers[rank]
        with self._death_noticed(rank):
            try:
                worker.line.receive()
            except LineSilentError:
                self._end_silent(rank)
            worker.is_busy = False
        return rank in self._workers

    def stop(self) -> None:
        """End all workers."""
        for rank in list(self._workers):
            self._kill(rank)
        self._dead.clear()

    def close(self) -> None:
        """End all workers, and the process that they are forked from."""
        server, self._server = self._server, None
        self.hang_up()
        if server is not None:
            server.hang_up()
            server.wait()

    def hang_up(self) -> None:
        """Close this process's ends of all connections to workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._dead.clear()

    def leave_to_parent(self) -> None:
        """In a fork of the learner: the workers are those of its parent, which must not wait for this process's end."""
        if self._server is not None:
            self._server.hang_up()
            self._server = None
        self.hang_up()

    def __del__(self) -> None:
        if getattr(self, "_server", None) is not None:
            self.close()

    def _look_at(self, rank: int) -> None:
        """Notice that a worker is ready, or dead, and end it if it is out of step."""
        worker = self._workers[rank]
        if worker.is_busy:
            # An exception has come in between, such as Ctrl-C. It may still write to shared memory.
            self._kill(rank)
            return
        with self._death_noticed(rank):
            worker.is_ready = worker.line.received() is not None or worker.is_ready

    def _start(self, rank: int, make_job: MakeJob) -> None:
        line, worker_end = Line.pair(PATIENCE_SECONDS)
        with worker_end:
            worker = _Worker(self._fork(rank), line)
            self._workers[rank] = worker
            with contextlib.suppress(ChannelClosedError):
                worker.channel.send(make_job(rank, worker_end))

    def _fork(self, rank: int) -> Channel:
        server = self.prepare()
        try:
            return server.fork(rank)
        except ChannelClosedError:
            # It is dead, and its workers with it. No other server knows of them.
            for other in list(self._workers):
                self._remove_dead(other)
            self._take_in_deaths()
            server.hang_up()
            server.wait()
            self._server = None
            return self.prepare().fork(rank)

    def _kill(self, rank: int) -> None:
        assert self._server is not None
        with contextlib.suppress(ChannelClosedError):
            self._server.kill(rank)
        self._workers.pop(rank).close()
        self._server.death_of(rank)

    def _end_silent(self, rank: int) -> None:
        self._kill(rank)
        self.n_restarts += 1
        warn_user(
            f"Gradient worker {rank} has not answered for {PATIENCE_SECONDS:g} s, and was ended. The learner computes "
            "its share, so that no number is another one, and a new worker takes its place before the next update."
        )

    def _take_in_deaths(self) -> None:
        """Wait until all that have hung up are dead, and tell the user of the first one."""
        while self._dead:
            assert self._server is not None
            death = self._server.death_of(self._dead.pop())
            self.n_restarts += 1
            if self.n_restarts == 1:
                _warn(death)

    def _remove_dead(self, rank: int) -> None:
        self._workers.pop(rank).close()
        self._dead.add(rank)

    @contextmanager
    def _death_noticed(self, rank: int) -> Iterator[None]:
        try:
            yield
        except LineClosedError:
            self._remove_dead(rank)


def _warn(death: Death) -> None:
    where = f" Its traceback:\n\n{death.traceback.rstrip()}\n\n" if death.traceback else " "
    warn_user(
        f"Gradient worker {death.sampler} {death.how}.{where}The learner has computed its share, so that no number is "
        "another one, and a new worker takes its place. Further ones are counted in async/learner_restarts only."
    )


_open_workers: "weakref.WeakSet[GradientWorkers]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for workers in list(_open_workers):
        workers.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
