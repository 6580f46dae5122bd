"""What runs on a node: samplers in processes, and what is carried between them and the learner."""

import importlib.metadata
import math
import os
import pickle
import platform
import select
import sys
import threading
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import ray

from sb3_walle.backends.death import Death
from sb3_walle.backends.process import ProcessSamplers
from sb3_walle.backends.protocol import UNREADABLE, Delivery, Event
from sb3_walle.backends.ray.host_queues import HostQueues
from sb3_walle.backends.ray.passing import PackedRequest
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.errors import Failure, SamplerWarning
from sb3_walle.samplers.requests import Result
from sb3_walle.samplers.tickets import ChunkReport
from sb3_walle.transport.memory_queues import QueuePlan

#: a host that has nothing to tell says so after this time in seconds
POLL_SECONDS = 1.0
# A reply has as many samples as that, where they come within this time in seconds.
SAMPLES_PER_REPLY = 400
GATHER_SECONDS = 0.003
# A learner that has not asked for that long is gone or out of reach.
ORPHAN_SECONDS = 9.0


@dataclass(frozen=True)
class HostNews:
    """
    What a host has to tell.

    :param events: replies and deaths, in their order, pickled one by one, with the numbers of the sampler and of the
        request: an array in them would otherwise be a view of Ray's object store, and keep all that came with it
    :param chunks: for each event that announces a chunk, by its index: number of the queues, and the chunk's slot
    :param seconds_at_step: for how long environments have been making their present step, by number of the sampler
    :param warnings: what the user should know
    """

    events: Sequence[tuple[int, int, bytes]]
    chunks: Mapping[int, tuple[int, np.ndarray]]
    seconds_at_step: Mapping[int, float]
    warnings: Sequence[str]


def versions(preload: Iterable[str]) -> dict[str, str]:
    """
    :param preload: names of modules that samplers import
    :return: the versions of what must be the same on every node, by name
    """
    found = {"Python": platform.python_version()}
    for package in ("sb3_walle", "numpy", "gymnasium", *(("torch",) if "torch" in preload else ())):
        try:
            # Builds for a GPU or without compute the same: 2.13.0+cpu.
            found[package] = importlib.metadata.version(package).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


class Host:
    """
    An actor of Ray: the samplers of one node, for a learner that may be anywhere. Commands are carried out in their
    order; polls wait beside them.

    :param n_samplers: number of samplers of all nodes
    :param preload: names of modules to import before forking
    :param supervision: how samplers are run
    :param import_paths: where the learner finds modules; what of that exists on this node, on a shared file system for
        example, is looked at after the node's own
    """

    def __init__(
        self, n_samplers: int, preload: Iterable[str], supervision: Supervision, import_paths: Iterable[str]
    ) -> None:
        sys.path += [path for path in import_paths if path not in sys.path and os.path.isdir(path)]
        self._preload = tuple(preload)
        self._samplers = ProcessSamplers(n_samplers, self._preload, supervision, running=())
        step_timeout = supervision.step_timeout
        self._poll_seconds = POLL_SECONDS if step_timeout is None else min(POLL_SECONDS, step_timeout / 4)
        self._lock = threading.Lock()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._alive: set[int] = set()
        self._unsent: dict[int, deque[tuple[int, Any]]] = defaultdict(deque)
        self._deaths: deque[Death] = deque()
        # The queues that were opened last, their number, and for each request that is not answered yet, the number of
        # those that were open when it was made.
        self._queues: HostQueues | None = None
        self._queues_number = -1
        self._queues_of: dict[tuple[int, int], int] = {}
        # What has arrived and is not told yet: events, and the chunks that some of them announce, by their index.
        self._events: list[Event] = []
        self._chunks: dict[int, tuple[int, np.ndarray]] = {}
        self._n_samples = 0
        self._first_at = 0.0
        self._is_closing = False
        # All that the samplers' supervision has warned of on this node, and how much of it was told.
        self._warnings: list[str] = []
        self._n_told = 0
        self._show_warning, warnings.showwarning = warnings.showwarning, self._note_warning
        # The learner's signs begin when all hosts have started. Until then, Ray ends this host with the learner.
        self._heard_at = math.inf
        threading.Thread(target=self._end_if_orphaned, daemon=True).start()

    @ray.method(concurrency_group="commands")
    def versions(self) -> dict[str, str]:
        """:return: the versions of what must be the same on every node, by name"""
        return versions(self._preload)

    @ray.method(concurrency_group="beats")
    def beat(self) -> None:
        """Give a sign of life, whatever else the host is doing."""
        self._heard_at = time.monotonic()

    @ray.method(concurrency_group="commands")
    def carry_out(self, commands: Sequence[tuple[str, tuple]]) -> None:
        """
        :param commands: names of the methods below, with their arguments
        """
        for name, args in commands:
            # What travels is waited for without the lock, which news need.
            ready = [ray.get(value) if isinstance(value, ray.ObjectRef) else value for value in args]
            with self._lock:
                getattr(self, f"_{name}")(*ready)
        with self._lock:
            self._send_unsent()
        os.eventfd_write(self._wakeup, 1)

    @ray.method(concurrency_group="polls")
    def poll(self) -> HostNews:
        """
        Wait until there is something to tell, but for no longer than ``POLL_SECONDS``.

        :return: all that there is
        """
        deadline = time.monotonic() + self._poll_seconds
        waiting = select.poll()
        waiting.register(self._wakeup, select.POLLIN)
        if not self._is_closing:
            waiting.register(self._samplers.fileno(), select.POLLIN)
        while True:
            with self._lock:
                self._take_in()
                left = min(deadline, self._tell_at()) - time.monotonic()
                if left <= 0:
                    return self._news()
            if self._is_closing:
                # Its samplers' descriptors are closed any moment.
                time.sleep(left)
                continue
            for descriptor, _ in waiting.poll(left * 1000):
                if descriptor == self._wakeup:
                    os.eventfd_read(self._wakeup)

    @ray.method(concurrency_group="commands")
    def close(self, timeout: float | None) -> list[str]:
        """
        Have the samplers of this node end.

        :param timeout: longest wait in seconds before they are killed
        :return: all that this host has ever warned of
        """
        with self._lock:
            self._is_closing = True
        self._samplers.close(timeout)
        return self._warnings

    # Commands

    def _start(self, sampler: int) -> None:
        self._unsent[sampler].clear()
        self._alive.add(sampler)
        try:
            self._samplers.start(sampler)
        except Exception as error:
            self._alive.discard(sampler)
            self._deaths.append(Death(sampler, f"could not be started ({type(error).__name__}: {error})"))

    def _send(self, sampler: int, number: int, payload: bytes, is_plain: bool) -> None:
        # What was asked of a sampler whose death the learner has not heard of yet is asked again of the next one.
        if sampler in self._alive:
            end = None if is_plain or self._queues is None else self._queues.end_of(sampler)
            self._queues_of[sampler, number] = self._queues_number
            self._unsent[sampler].append((number, PackedRequest(payload, is_plain, end)))

    def _kill(self, sampler: int) -> None:
        self._samplers.kill(sampler)

    def _open_queues(self, number: int, plan: QueuePlan) -> None:
        self._queues, self._queues_number = HostQueues(plan), number

    def _publish(self, number: int, version: int, weights: Mapping[str, np.ndarray]) -> None:
        if self._queues is not None and number == self._queues_number:
            self._queues.publish(version, weights)

    def _start_run(self, number: int, run: int) -> None:
        if self._queues is not None and number == self._queues_number:
            while self._queues.control.run < run:
                self._queues.control.start_run()

    def _limit_chunks(self, number: int, seconds: float) -> None:
        if self._queues is not None and number == self._queues_number:
            self._queues.control.limit_chunks(seconds)

    # News

    def _send_unsent(self) -> None:
        for sampler, requests in self._unsent.items():
            while requests and self._samplers.send(sampler, *requests[0]):
                requests.popleft()

    def _take_in(self) -> None:
        """Take in what samplers have sent, and what has become of them."""
        events: list[Event] = list(self._deaths)
        self._deaths.clear()
        while not self._is_closing and (event := self._samplers.receive(0.0)) is not None:
            events.append(event)
        if events and not self._events:
            self._first_at = time.monotonic()
        for event in events:
            if isinstance(event, Death):
                self._forget(event.sampler)
            elif not self._is_closing:
                self._note_chunk(event, len(self._events))
            self._events.append(event)
        if not self._is_closing:
            self._send_unsent()

    def _tell_at(self) -> float:
        """
        When to tell what there is. Each reply costs Ray as much as some hundred samples, so the first chunk waits a
        moment for those that other samplers are about to finish.
        """
        if len(self._warnings) > self._n_told:
            return 0.0
        if not self._events:
            return math.inf
        is_enough = self._n_samples >= SAMPLES_PER_REPLY or not self._queues_of
        return 0.0 if is_enough else self._first_at + GATHER_SECONDS

    def _news(self) -> HostNews:
        """What to tell, which is forgotten here."""
        events, chunks = self._events, self._chunks
        self._events, self._chunks, self._n_samples = [], {}, 0
        untold = self._warnings[self._n_told :]
        self._n_told += len(untold)
        alive = () if self._is_closing else self._alive
        seconds = {sampler: self._samplers.seconds_at_step(sampler) for sampler in alive}
        return HostNews(
            [_pickled(event) for event in events],
            chunks,
            {sampler: value for sampler, value in seconds.items() if value},
            untold,
        )

    def _note_chunk(self, delivery: Delivery, index: int) -> None:
        number = self._queues_of.pop((delivery.sampler, delivery.number), -1)
        if self._queues is None or number != self._queues_number or not isinstance(delivery.reply, Result):
            return
        report = delivery.reply.value
        if isinstance(report, ChunkReport) and report.seal is not None:
            self._chunks[index] = number, self._queues.slot(delivery.sampler, report.slot)
            self._n_samples += report.seal.n_steps * self._queues.n_envs_per_sampler

    def _note_warning(self, message: Warning | str, category: type[Warning], *where: Any, **further: Any) -> None:
        if issubclass(category, SamplerWarning):
            self._warnings.append(str(message))
        else:
            self._show_warning(message, category, *where, **further)

    def _forget(self, sampler: int) -> None:
        self._alive.discard(sampler)
        self._unsent[sampler].clear()
        self._queues_of = {key: queues for key, queues in self._queues_of.items() if key[0] != sampler}

    def _end_if_orphaned(self) -> None:
        while time.monotonic() - self._heard_at < ORPHAN_SECONDS:
            time.sleep(ORPHAN_SECONDS / 40)
        print("The learner is out of reach: this host and its samplers end.", file=sys.stderr)
        os._exit(1)


def _pickled(event: Event) -> tuple[int, int, bytes]:
    number = event.number if isinstance(event, Delivery) else UNREADABLE
    try:
        return event.sampler, number, cloudpickle.dumps(event)
    except Exception as error:
        failure = Failure.of(error, "sending its answer")
        return event.sampler, number, cloudpickle.dumps(Delivery(event.sampler, number, failure))


def unpickled(sampler: int, number: int, event: bytes) -> Event:
    """
    :param sampler: number of the sampler that it comes from
    :param number: number of the request that it answers, if it is a reply
    :param event: one of a host's events
    :return: the same, or a failure if this process cannot unpickle it
    """
    try:
        return pickle.loads(event)
    except Exception as error:
        return Delivery(sampler, number, Failure.of(error, "reading its answer"))


# Retries of Ray's would lose or repeat what samplers have collected.
HostActor: Any = ray.remote(
    max_restarts=0, max_task_retries=0, concurrency_groups={"commands": 1, "polls": 1, "beats": 1}
)(Host)  # type: ignore[call-overload]
