"""Since when an environment has been making its present step: tells a sampler that hangs from one that works."""

import time

from sb3_walle.transport.layout import ALIGNMENT
from sb3_walle.transport.memory import Memory

_RESTING = 0


class PulseBoard:
    """
    The learner's end: one number a sampler, which only that sampler writes.

    :param memory: one cache line a sampler, so that samplers do not slow each other down
    """

    def __init__(self, memory: Memory) -> None:
        self._places = [memory.view[start : start + 8].cast("q") for start in range(0, memory.nbytes, ALIGNMENT)]

    @staticmethod
    def nbytes(n_samplers: int) -> int:
        return n_samplers * ALIGNMENT

    def seconds_at_step(self, sampler: int) -> float:
        """:return: for how long one of its environments has been making its present step or reset; 0 if none is"""
        began = self._places[sampler][0]
        return 0.0 if began == _RESTING else (time.monotonic_ns() - began) / 1e9

    def clear(self, sampler: int) -> None:
        """Forget what a dead sampler was doing."""
        self._places[sampler][0] = _RESTING

    def pulse(self, sampler: int) -> "Pulse":
        return Pulse(self._places[sampler])


class Pulse:
    """A sampler's end."""

    def __init__(self, place: memoryview) -> None:
        self._place = place

    def beat(self) -> None:
        """An environment begins a step or a reset."""
        # This clock is the same for all processes of a machine.
        self._place[0] = time.monotonic_ns()

    def rest(self) -> None:
        """No environment is making a step."""
        self._place[0] = _RESTING
