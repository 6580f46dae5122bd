"""Times of samplers by the learner's clock."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sb3_walle.timeline.timeline import TakenChunk


class CollectedChunk(NamedTuple):
    """A chunk, and when its ticket was given: minus infinity if that is not known any more."""

    chunk: TakenChunk
    given_at: float


def clock_shifts(collected: Sequence[CollectedChunk]) -> list[float]:
    """
    Find out what to add to a sampler's times to get those of the learner.

    On one machine, all processes have the same clock. Another machine has another one, but no chunk begins before its
    ticket is given, nor ends after the learner has it. The shift that this allows for all chunks is known up to the
    time that a message takes. Where no shift fits all, the clock is another one from there on, of the machine of a
    successor, or runs faster.

    :param collected: chunks of one sampler, in their order
    :return: the shift of each of them, in seconds
    """
    shifts: list[float] = []
    low, high, n_alike = -math.inf, math.inf, 0
    for chunk, given_at in collected:
        lowest, highest = given_at - chunk.began, chunk.taken_at - chunk.ended
        if lowest > high or highest < low:
            shifts += [_shift(low, high)] * n_alike
            low, high, n_alike = -math.inf, math.inf, 0
        low, high, n_alike = max(low, lowest), min(high, highest), n_alike + 1
    return shifts + [_shift(low, high)] * n_alike


def _shift(low: float, high: float) -> float:
    if low <= 0 <= high:
        return 0.0
    return high if low == -math.inf else (low + high) / 2
