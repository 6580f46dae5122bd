"""
Where the learner publishes weights and samplers pull them: one writer, many readers, latest wins.

The queue keeps the last two publications in two slots. The writer always overwrites the older one, so a reader that
is copying the newest is not disturbed. There is no lock: a slot carries a serial number, which is zero while the slot
is being written, and a checksum; a reader copies the slot, then looks again, and starts over if either does not match.
Publishing therefore costs the same for one reader as for a hundred, and a reader that dies at any instruction
holds up no other.
"""

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import Field, Layout, align
from sb3_walle.transport.memory import Memory

N_SLOTS = 2
# No learner publishes often enough to spoil this many copies in a row: the memory is damaged.
MAX_ATTEMPTS = 10_000

_HEADER = Layout((Field("latest_serial", (), "<i8"),))
_SLOT_HEADER = Layout((Field("serial", (), "<i8"), Field("version", (), "<i8"), Field("checksum", (), "<i8")))


def policy_queue_nbytes(layout: Layout) -> int:
    """:return: size of the memory of a queue for weights of that layout, in bytes"""
    return _HEADER.nbytes + N_SLOTS * _stride(layout)


def _stride(layout: Layout) -> int:
    return align(_SLOT_HEADER.nbytes + layout.nbytes)


class _Publication:
    """One publication's place in memory."""

    def __init__(self, memory: memoryview, layout: Layout) -> None:
        header = _SLOT_HEADER.views(memory)
        self.serial, self.version, self.checksum = header["serial"], header["version"], header["checksum"]
        self.payload = memory[_SLOT_HEADER.nbytes : _SLOT_HEADER.nbytes + layout.nbytes]


def _slots(memory: memoryview, layout: Layout) -> list[_Publication]:
    stride = _stride(layout)
    starts = [_HEADER.nbytes + index * stride for index in range(N_SLOTS)]
    return [_Publication(memory[start : start + stride], layout) for start in starts]


def _checksum(serial: int, version: int, payload: bytearray | memoryview) -> int:
    """Of all that a reader copies: some processors let it see what was written in another order."""
    return zlib.crc32(payload, zlib.crc32(struct.pack("<qq", serial, version)))


class PolicyQueue:
    """
    The learner's end, a :class:`WeightPublisher`.

    :param layout: layout of one set of weights
    :param memory: as much zeroed memory as the queue takes
    """

    def __init__(self, layout: Layout, memory: Memory) -> None:
        self._layout = layout
        self._latest_serial = _HEADER.views(memory.view)["latest_serial"]
        self._slots = _slots(memory.view, layout)
        self._arrays = [layout.views(slot.payload) for slot in self._slots]
        self._serial = 0

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        for field in self._layout.fields:
            array = weights[field.name]
            if array.shape != field.shape or array.dtype != np.dtype(field.dtype):
                raise TransportError(f"'{field.name}' is {array.dtype}{list(array.shape)}, but {field} was laid out")
        self._serial += 1
        slot, arrays = self._slots[self._serial % N_SLOTS], self._arrays[self._serial % N_SLOTS]
        slot.serial[...] = 0
        for name, array in arrays.items():
            np.copyto(array, weights[name])
        slot.version[...] = version
        slot.checksum[...] = _checksum(self._serial, version, slot.payload)
        slot.serial[...] = self._serial
        self._latest_serial[...] = self._serial


class PolicyReader:
    """A sampler's end, a :class:`WeightSource`."""

    def __init__(self, layout: Layout, memory: Memory) -> None:
        self._latest_serial = _HEADER.views(memory.view)["latest_serial"]
        self._slots = _slots(memory.view, layout)
        self._copy = bytearray(layout.nbytes)
        self.weights = layout.views(memoryview(self._copy))
        #: serial number and policy version of the weights that were pulled last
        self.serial, self.version = 0, -1

    def pull(self, version: int | None = None) -> dict[str, np.ndarray] | None:
        for _ in range(MAX_ATTEMPTS):
            slot = self._find(version)
            if slot is None:
                continue
            serial, found = int(slot.serial), int(slot.version)
            # It can even be older: the newest one is announced a moment after it can be read.
            if serial == self.serial > 0 or (version is None and 0 < serial < self.serial):
                return None
            self._copy[:] = slot.payload
            intact = (
                serial and serial == int(slot.serial) and _checksum(serial, found, self._copy) == int(slot.checksum)
            )
            # In the time since it was found, the slot may have got another version.
            if intact and version in (None, found):
                self.serial, self.version = serial, found
                return self.weights
        kept = sorted(int(slot.version) for slot in self._slots if int(slot.serial))
        raise TransportError(f"Policy version {version} cannot be read from the policy queue, which holds {kept}")

    def _find(self, version: int | None) -> _Publication | None:
        """Where to look for that version. None if it is in neither slot, which may be because it is being written."""
        if version is None:
            return self._slots[int(self._latest_serial) % N_SLOTS]
        matching = [slot for slot in self._slots if int(slot.serial) and int(slot.version) == version]
        return max(matching, key=lambda slot: int(slot.serial), default=None)
