"""What stands in front of a block of shared memory, so that nobody reads it as something else than it is."""

import zlib
from dataclasses import dataclass

import numpy as np

from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import Field, Layout

MAGIC = int.from_bytes(b"sb3walle", "little")
# To be raised whenever memory of the same layout comes to look otherwise: what stands in front of a slot, say.
FORMAT_VERSION = 1

# The last words are zero, and fill up what the layout would pad: no byte of the label can change unnoticed.
_WORDS = ("magic number", "format version", "layout fingerprint", "size", *["reserved word"] * 4)
_LABEL = Layout((Field("words", (len(_WORDS),), "<u8"),))

#: Bytes that the label takes. What it belongs to begins behind them.
LABEL_NBYTES = _LABEL.nbytes


@dataclass(frozen=True)
class Label:
    """
    Says what a block of memory holds. Its owner writes it; whoever maps the memory compares it with what it expects.

    :param kind: what the memory is, as in "policy queue"
    :param layout: layout of the arrays in it
    :param nbytes: size of the whole block, with the label
    :param counts: how often the layout occurs there, if that can differ
    """

    kind: str
    layout: Layout
    nbytes: int
    counts: tuple[int, ...] = ()

    def write(self, memory: memoryview) -> None:
        """
        :param memory: the whole block
        """
        _LABEL.views(memory)["words"][...] = self._words()

    def check(self, memory: memoryview) -> None:
        """
        :param memory: the whole block
        :raises TransportError: if its size or its label is another one
        """
        if len(memory) != self.nbytes:
            raise TransportError(f"The {self.kind} has {len(memory)} bytes, but its layout needs {self.nbytes}")
        found = tuple(int(word) for word in _LABEL.views(memory)["words"])
        differences = [
            f"{name} {_spelled(name, there)} where {_spelled(name, here)} was expected"
            for name, there, here in zip(_WORDS, found, self._words(), strict=True)
            if there != here
        ]
        if differences:
            raise TransportError(
                f"The {self.kind} in shared memory is not the one that this process knows: it has the "
                + ", the ".join(differences)
            )

    def _words(self) -> tuple[int, ...]:
        known = (MAGIC, FORMAT_VERSION, self._fingerprint(), self.nbytes)
        return known + (0,) * (len(_WORDS) - len(known))

    def _fingerprint(self) -> int:
        """A number of the layout that is the same in every process, which ``hash()`` is not."""
        lines = [self.kind, _canonical_numbers(self.counts), *(_canonical(field) for field in self.layout.fields)]
        return zlib.crc32("\n".join(lines).encode())


def _canonical(field: Field) -> str:
    # The same data type can be spelled in several ways.
    return f"{field.name!a} {_canonical_numbers(field.shape)} {np.dtype(field.dtype).str}"


def _canonical_numbers(numbers: tuple[int, ...]) -> str:
    # NumPy's integers are spelled otherwise.
    return str([int(number) for number in numbers])


def _spelled(name: str, word: int) -> str:
    return str(word) if name in ("size", "format version") else f"{word:#018x}"
