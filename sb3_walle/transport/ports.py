"""
What a learner and its samplers see of each other while they work. A backend opens both ends of all three queues, so
that another kind of memory, or another machine, is another backend and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sb3_walle.transport.chunk import Chunk, Seal


class WeightSource(Protocol):
    """Where a sampler pulls weights, and the statistics to normalise with, from."""

    #: the arrays that were pulled last, by name; valid until the next pull
    weights: dict[str, np.ndarray]
    #: their policy version, -1 before the first pull
    version: int

    def pull(self, version: int | None = None) -> dict[str, np.ndarray] | None:
        """
        Copy a set of weights, if it is not the one that was pulled last.

        :param version: the policy version to copy; by default the newest one
        :return: the arrays by name, valid until the next call; ``None`` if nothing changed
        :raises TransportError: if that version was never published or is no longer kept, or if it is damaged
        """


class Control(Protocol):
    """What a sampler reads at every step: each property costs no more than a look at memory."""

    @property
    def run(self) -> int:
        """Number of the current collection run. Samplers abandon chunks that belong to another one."""

    @property
    def latest_version(self) -> int:
        """Policy version of the newest publication, -1 before the first."""

    @property
    def chunk_seconds(self) -> float:
        """How long a chunk of mode "free" should take at most; infinite if there is no limit."""


class ChunkSink(Protocol):
    """Where a sampler puts its chunks."""

    def open(self, slot: int) -> Chunk:
        """
        :param slot: index of a slot that the learner has reserved
        :return: the arrays to fill; their old contents are undefined
        """

    def seal(self, slot: int, seal: Seal) -> None:
        """Mark a chunk as finished."""

    def is_free(self, slot: int) -> bool:
        """
        :param slot: index of a slot that the sampler takes without asking
        :return: whether it holds no chunk that the learner has not released
        """

    def forget_from(self, ticket: int) -> None:
        """Free the slots of chunks with this number and higher ones: the learner will never hear of them."""


class WeightPublisher(Protocol):
    """Where the learner publishes weights."""

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """
        Make a set of weights the newest one. Never waits for a sampler.

        :param version: policy version, the number of completed ``train()`` calls
        :param weights: the arrays by name
        :raises TransportError: if an array has another shape or type than was planned
        """


class ControlBoard(Protocol):
    """What the learner tells samplers while they work."""

    @property
    def run(self) -> int:
        """Number of the current collection run."""

    def start_run(self) -> None:
        """Make samplers abandon, at their next step, what they are collecting."""

    def announce(self, version: int) -> None:
        """Tell the policy version of the newest publication."""

    def limit_chunks(self, seconds: float) -> None:
        """Tell how long a chunk of mode "free" should take at most, 0 for no limit."""


class ChunkSource(Protocol):
    """
    Where the learner takes chunks from. Every sampler has slots of its own, whose number bounds both memory and how far
    the sampler can run ahead.
    """

    n_slots: int

    def reserve(self, sampler: int) -> int | None:
        """:return: index of a slot for the sampler's next chunk, ``None`` if all of them are taken"""

    def n_reserved(self, sampler: int) -> int:
        """:return: how many of the sampler's slots are taken"""

    def chunk(self, sampler: int, slot: int, announced: Seal) -> Chunk:
        """
        :param announced: what the sampler said of the chunk
        :return: the chunk in a slot, whose arrays are valid until the slot is released
        :raises TransportError: if the slot holds something else than what was announced
        """

    def release(self, sampler: int, slot: int) -> None:
        """
        Give a slot back. Its chunk is not used any more.

        :raises IndexError: if there is no such slot
        """

    def release_all(self) -> None:
        """Give back the slots of all samplers."""


@dataclass(frozen=True)
class SamplerQueues:
    """One sampler's end."""

    policy: WeightSource
    control: Control
    chunks: ChunkSink


class SamplerEnd(Protocol):
    """The samplers' end, as it travels to them. It pickles wherever the backend's requests do."""

    def open(self, sampler: int) -> SamplerQueues:
        """:return: the end of one sampler, which calls this"""


@dataclass(frozen=True)
class LearnerQueues:
    """The learner's end, and what each sampler opens."""

    policy: WeightPublisher
    control: ControlBoard
    chunks: ChunkSource
    sampler_end: SamplerEnd
