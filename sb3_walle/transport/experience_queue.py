"""
Where samplers put chunks and the learner takes them.

Every sampler has slots of its own, so no two processes ever write to the same memory. The learner reserves a slot
before it asks for a chunk and releases it when it has copied the chunk out: the number of slots bounds both memory and
how far samplers can run ahead. Only the index of a slot travels as a message.

In mode "realtime" samplers take their slots in turn without being asked: a slot without a seal is free.
"""

from dataclasses import dataclass

import numpy as np

from sb3_walle.transport.chunk import Chunk, Seal
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import Field, Layout, align
from sb3_walle.transport.memory import Memory

_SEAL = Layout((Field("seal", (4,), "<i8"),))
# Words of a seal.
_TICKET, _N_STEPS = 0, 2
# A ring has thousands of slots, which are used in turn: arrays over all of them would take more memory than they hold.
_MOST_KEPT = 256


@dataclass(frozen=True)
class ExperienceGeometry:
    """
    Where every slot of the queue lies.

    :param layout: layout of one chunk
    :param n_samplers: number of samplers
    :param n_slots: slots of each sampler
    """

    layout: Layout
    n_samplers: int
    n_slots: int

    @property
    def nbytes(self) -> int:
        """Size of the queue's memory in bytes."""
        return self.n_samplers * self.n_slots * self.stride

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next."""
        return align(_SEAL.nbytes + self.layout.nbytes)

    def slot(self, memory: memoryview, sampler: int, slot: int) -> memoryview:
        """:return: the part of the queue's memory in which a slot lies"""
        if not (0 <= sampler < self.n_samplers and 0 <= slot < self.n_slots):
            raise IndexError(f"No slot {slot} of sampler {sampler} in {self.n_samplers} x {self.n_slots} slots")
        start = (sampler * self.n_slots + slot) * self.stride
        return memory[start : start + self.stride]


class _ExperienceSlot:
    """A slot's seal and chunk, as arrays over its memory."""

    def __init__(self, memory: memoryview, layout: Layout) -> None:
        self.seal = _SEAL.views(memory)["seal"]
        self.chunk = Chunk(layout.views(memory[_SEAL.nbytes :]))


class _SlotsOfSampler:
    """The slots of one sampler, whose arrays are made when they are needed."""

    def __init__(self, geometry: ExperienceGeometry, memory: Memory, sampler: int) -> None:
        self._geometry, self._memory, self._sampler = geometry, memory, sampler
        self._kept: dict[int, _ExperienceSlot] = {}
        if not 0 <= sampler < geometry.n_samplers:
            raise IndexError(f"No sampler {sampler} among {geometry.n_samplers}")
        start = sampler * geometry.n_slots * geometry.stride
        shape, strides = (geometry.n_slots, 4), (geometry.stride, 8)
        #: the words of all seals, ``[n_slots, 4]``
        self.seals = np.ndarray(shape, "<i8", buffer=memory.view, offset=start, strides=strides)

    def __getitem__(self, slot: int) -> _ExperienceSlot:
        found = self._kept.get(slot)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            part = self._geometry.slot(self._memory.view, self._sampler, slot)
            found = self._kept[slot] = _ExperienceSlot(part, self._geometry.layout)
        return found


class ExperienceQueue:
    """
    The learner's end, a :class:`ChunkSource`.

    :param geometry: where the slots lie
    :param memory: as much zeroed memory as they take
    """

    def __init__(self, geometry: ExperienceGeometry, memory: Memory) -> None:
        self.n_slots = geometry.n_slots
        self._slots = [_SlotsOfSampler(geometry, memory, sampler) for sampler in range(geometry.n_samplers)]
        self._free = [set(range(geometry.n_slots)) for _ in range(geometry.n_samplers)]

    def reserve(self, sampler: int) -> int | None:
        if not self._free[sampler]:
            return None
        slot = self._free[sampler].pop()
        # The learner must not take the seal of the chunk before for that of the next one.
        self._slots[sampler][slot].seal[...] = 0
        return slot

    def n_reserved(self, sampler: int) -> int:
        return self.n_slots - len(self._free[sampler])

    def release(self, sampler: int, slot: int) -> None:
        if not 0 <= slot < self.n_slots:
            raise IndexError(f"No slot {slot} in {self.n_slots} slots")
        self._slots[sampler].seals[slot, _N_STEPS] = 0
        self._free[sampler].add(slot)

    def chunk(self, sampler: int, slot: int, announced: Seal) -> Chunk:
        view = self._slots[sampler][slot]
        found = tuple(int(word) for word in view.seal)
        if found != announced.words() or not 0 <= announced.n_steps <= view.chunk.capacity:
            raise TransportError(f"Sampler {sampler} announced {announced} in slot {slot}, which holds {found}")
        view.chunk.n_steps = announced.n_steps
        return view.chunk

    def release_all(self) -> None:
        for free in self._free:
            free.update(range(self.n_slots))


class ExperienceWriter:
    """A sampler's end, a :class:`ChunkSink`."""

    def __init__(self, geometry: ExperienceGeometry, memory: Memory, sampler: int) -> None:
        self._slots = _SlotsOfSampler(geometry, memory, sampler)

    def open(self, slot: int) -> Chunk:
        self._slots[slot].seal[...] = 0
        return self._slots[slot].chunk

    def seal(self, slot: int, seal: Seal) -> None:
        self._slots[slot].seal[...] = seal.words()

    def is_free(self, slot: int) -> bool:
        return not self._slots.seals[slot, _N_STEPS]

    def forget_from(self, ticket: int) -> None:
        seals = self._slots.seals
        seals[seals[:, _TICKET] >= ticket] = 0
