"""A chunk that has arrived."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sb3_walle.samplers.infos import InfoRecord
from sb3_walle.transport.chunk import Chunk


@dataclass(frozen=True)
class Arrival:
    """
    A chunk that has arrived, in its slot of the experience queue.

    :param sampler: number of the sampler
    :param ticket: number of the sampler's ticket: the chunk with the next number continues this one
    :param version: policy version that chose the actions
    :param chunk: what the slot holds
    :param infos: the infos that came with it
    :param seconds: how long the sampler took for it
    :param release: gives the slot back; the chunk must not be used afterwards
    """

    sampler: int
    ticket: int
    version: int
    chunk: Chunk
    infos: Sequence[InfoRecord]
    seconds: float
    release: Callable[[], None]
