"""What the learner tells samplers while they work: three numbers in memory, which they look at in every step."""

import math
import os

from sb3_walle.transport.memory import Memory

_RUN, _LATEST_VERSION, _CHUNK_NANOSECONDS = range(3)
CONTROL_NBYTES = 3 * 8


class MemoryControlBoard:
    """
    The learner's end, a :class:`ControlBoard`.

    :param memory: ``CONTROL_NBYTES`` of zeroed memory
    """

    def __init__(self, memory: Memory) -> None:
        self._words = memory.view.cast("q")
        self._words[_LATEST_VERSION] = -1
        self._owner = os.getpid()

    @property
    def run(self) -> int:
        return self._words[_RUN]

    def start_run(self) -> None:
        # A forked copy of the learner shares the memory, but the samplers are not its own.
        if os.getpid() == self._owner:
            self._words[_RUN] += 1

    def announce(self, version: int) -> None:
        self._words[_LATEST_VERSION] = version

    def limit_chunks(self, seconds: float) -> None:
        self._words[_CHUNK_NANOSECONDS] = round(seconds * 1e9)


class MemoryControl:
    """A sampler's end, a :class:`Control`. NumPy takes several times as long to read a number as a memoryview does."""

    def __init__(self, memory: Memory) -> None:
        self._words = memory.view.cast("q")

    @property
    def run(self) -> int:
        return self._words[_RUN]

    @property
    def latest_version(self) -> int:
        return self._words[_LATEST_VERSION]

    @property
    def chunk_seconds(self) -> float:
        return self._words[_CHUNK_NANOSECONDS] / 1e9 or math.inf
