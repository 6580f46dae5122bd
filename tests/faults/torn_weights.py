"""Processes that read weights as fast as they can while others are published as fast as possible."""

import json
import os
import signal
import time
import zlib
from dataclasses import dataclass

import numpy as np

from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.policy_queue import PolicyQueue, PolicyReader, policy_queue_nbytes
from sb3_walle.transport.shared_memory import SharedMemory

N_WEIGHTS = 200
LAYOUT = Layout((Field("version", (), "<i8"), Field("weights", (N_WEIGHTS,), "<f4"), Field("checksum", (), "<i8")))
# Readers that hardly ever find the same weights twice in a row would hardly ever find any.
PAUSE = 2e-5


@dataclass
class Reads:
    """
    :param published: how many sets of weights were published
    :param read: how many were read, by all readers together
    :param torn: how many of these were not one of the sets that were published
    :param backwards: how many were older than one that the same reader had read before
    """

    published: int = 0
    read: int = 0
    torn: int = 0
    backwards: int = 0


def read_while_publishing(seconds: float, n_readers: int) -> Reads:
    """
    :param seconds: how long
    :param n_readers: number of processes that read
    :return: what they found
    """
    memory, total = SharedMemory(policy_queue_nbytes(LAYOUT)), Reads()
    queue = PolicyQueue(LAYOUT, memory)
    _publish(queue, total)
    readers = [_start_reader(memory) for _ in range(n_readers)]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _publish(queue, total)
        time.sleep(PAUSE)
    for pid, pipe in readers:
        os.kill(pid, signal.SIGUSR1)
        with os.fdopen(pipe) as file:
            found = json.load(file)
        os.waitpid(pid, 0)
        total.read, total.torn = total.read + found["read"], total.torn + found["torn"]
        total.backwards += found["backwards"]
    return total


def _publish(queue: PolicyQueue, total: Reads) -> None:
    total.published += 1
    weights = np.full(N_WEIGHTS, total.published % 1000, np.float32)
    weights[total.published % N_WEIGHTS] = -1.0
    arrays = {"version": np.array(total.published), "weights": weights, "checksum": np.array(zlib.crc32(weights))}
    queue.publish(total.published, arrays)


def _start_reader(memory: SharedMemory) -> tuple[int, int]:
    """Returns the process, and a pipe that it is going to write to when it gets SIGUSR1."""
    pipe, end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(end)
        return pid, pipe
    try:
        is_over: list[int] = []
        signal.signal(signal.SIGUSR1, lambda *_: is_over.append(1))
        found = _read(PolicyReader(LAYOUT, memory), is_over)
        os.write(end, json.dumps(found).encode())
    finally:
        os._exit(0)


def _read(reader: PolicyReader, is_over: list[int]) -> dict[str, int]:
    found = {"read": 0, "torn": 0, "backwards": 0}
    newest = 0
    while not is_over:
        # Read them again even if they are the same.
        reader.serial = 0
        arrays = reader.pull()
        assert arrays is not None
        version = int(arrays["version"])
        found["read"] += 1
        found["torn"] += version != reader.version or zlib.crc32(arrays["weights"]) != int(arrays["checksum"])
        found["backwards"] += version < newest
        newest = version
    return found
