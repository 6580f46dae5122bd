"""The plant in a process of its own, which outlives its clients."""

import gc
import multiprocessing
import os
import pickle
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from benchmarks.realtime.messages import CLOSE, MAX_BYTES, OBSERVE, RESET, STEP, Order, pack_observed
from benchmarks.realtime.physics import Physics
from benchmarks.realtime.plant import Observed, Plant
from benchmarks.realtime.plant_record import Departure, PlantRecord

# Of 99. Samplers may have real-time scheduling, too: a clock must not wait for what it measures.
PRIORITY = 60
NICENESS = -15
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class PlantSettings:
    """
    :param env_id: Gymnasium id of the environment that the plant simulates
    :param hz: ticks a second, whatever time a tick is in the simulation
    :param phase: as for :class:`~benchmarks.realtime.plant.Plant`
    """

    env_id: str
    hz: float
    phase: float = 0.0


class PlantCounts(NamedTuple):
    """
    How much a plant has seen.

    :param client: process whose action arrived last, 0 if none has
    """

    ticks: int
    actions: int
    departures: int
    client: int


class RunningPlant:
    """
    :param address: where clients connect
    :param pid: the plant's process
    """

    def __init__(self, address: str, pid: int, control: Connection) -> None:
        self.address, self.pid, self._control = address, pid, control

    def record(self) -> PlantRecord:
        """:return: what the plant has seen until now"""
        return self._ask("record")

    def counts(self) -> "PlantCounts":
        """:return: how much that is, for questions that are asked again and again"""
        return self._ask("counts")

    def _ask(self, question: str) -> Any:
        self._control.send(question)
        return self._control.recv()


@contextmanager
def running_plant(settings: PlantSettings) -> Iterator[RunningPlant]:
    """A plant that stops at the end of the block."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="plant-") as directory:
        address, (control, of_plant) = str(Path(directory) / "socket"), context.Pipe()
        process = context.Process(target=run_plant, args=(settings, address, of_plant), daemon=True)
        process.start()
        of_plant.close()
        try:
            # That it listens.
            control.recv()
            assert process.pid is not None
            yield RunningPlant(address, process.pid, control)
        finally:
            control.close()
            process.join()


def run_plant(settings: PlantSettings, address: str, control: Connection) -> None:
    """
    :param address: path of the socket to make
    :param control: answers ``"record"`` and ``"counts"``; the plant ends when it is closed
    """
    plant = Plant(Physics(settings.env_id), 1 / settings.hz, settings.phase)
    plant.record.scheduling = take_priority()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        # A pause of the collector would be a late tick. The record holds no cycles.
        gc.freeze()
        gc.disable()
        control.send("listening")
        _PlantLoop(plant, listener, control).run()


def take_priority() -> str:
    """:return: how the kernel schedules this process from now on"""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return f"SCHED_FIFO {PRIORITY}"
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        return f"nice {NICENESS}"
    except OSError:
        return "as other processes"


class _PlantLoop:
    def __init__(self, plant: Plant, listener: socket.socket, control: Connection) -> None:
        self._plant, self._listener, self._control = plant, listener, control
        self._client: socket.socket | None = None
        self._client_pid = 0

    def run(self) -> None:
        """Tick and answer, until there is nobody to control the plant any more."""
        plant = self._plant
        while True:
            due = plant.due
            timeout = None if due is None else max(due - time.perf_counter(), 0)
            sources: list[Any] = [self._control, self._listener if self._client is None else self._client]
            ready, _, _ = select.select(sources, [], [], timeout)
            now = time.perf_counter()
            while plant.due is not None and plant.due <= now:
                self._answer(plant.tick(now))
                if self._client is None:
                    plant.stop_if_alone(now)
            if self._client in ready:
                self._take_order(now)
            if self._listener in ready:
                self._accept()
            if self._control in ready and not self._report():
                return

    def _accept(self) -> None:
        self._client, _ = self._listener.accept()
        credentials = self._client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._client_pid = _CREDENTIALS.unpack(credentials)[0]
        physics = self._plant.physics
        self._client.send(pickle.dumps((physics.observation_space, physics.action_space)))

    def _take_order(self, now: float) -> None:
        assert self._client is not None
        plant = self._plant
        try:
            message = self._client.recv(MAX_BYTES)
        except ConnectionResetError:
            message = b""
        order = Order.unpack(message) if message else None
        if order is None or order.kind == CLOSE:
            self._hang_up(now, said_so=order is not None)
        elif order.kind == RESET:
            self._answer(plant.reset(now, order.seed))
        elif order.kind == OBSERVE:
            self._answer(plant.observe(now))
        else:
            assert order.action is not None
            action = as_action(order.action, plant.physics.action_space)
            self._answer(plant.act(now, action, self._client_pid, order.kind == STEP))

    def _hang_up(self, now: float, said_so: bool) -> None:
        assert self._client is not None
        self._client.close()
        self._client = None
        self._plant.record.departures.append(Departure(now, self._client_pid, said_so))
        if said_so:
            self._plant.leave(now)

    def _answer(self, observed: Observed | None) -> None:
        if observed is None or self._client is None:
            return
        message = pack_observed(observed)
        self._plant.told(time.perf_counter())
        try:
            self._client.send(message)
        except OSError:
            # The client has died: its socket says so next.
            return

    def _report(self) -> bool:
        """Answer what the command asks for. Returns whether it is still there."""
        try:
            question = self._control.recv()
        except EOFError:
            return False
        record = self._plant.record
        if question == "record":
            self._control.send(record)
        else:
            client = record.actions[-1].client if record.actions else 0
            self._control.send(PlantCounts(len(record.ticks), len(record.actions), len(record.departures), client))
        return True


def as_action(values: np.ndarray, space: spaces.Space) -> np.ndarray:
    """:return: an action of the space, from its values in a row"""
    return values.reshape(space.shape or ()).astype(space.dtype)
