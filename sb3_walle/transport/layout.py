"""Named arrays laid out in one flat block of memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

# A cache line: arrays that start on one are never shared with a neighbour that another process writes.
ALIGNMENT = 64


def align(offset: int) -> int:
    """:return: a byte offset, rounded up to the next multiple of ``ALIGNMENT``"""
    return -(-offset // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Field:
    """
    One array of a layout.

    :param name: name of the array, unique within its layout
    :param shape: shape of the array
    :param dtype: data type of the array, as NumPy spells it (``"float32"``, ``"<i8"``, ...)
    :raises TypeError: if values of this type cannot live in flat memory
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).hasobject:
            raise TypeError(
                f"'{self.name}' has dtype {self.dtype}, which holds Python objects. "
                "Only numeric and boolean arrays can be laid out in flat memory."
            )

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """
    The arrays that share one block of memory, and where each of them begins.

    Both ends of a queue are given the same layout; after that, only the bytes travel.

    :param fields: the arrays, in the order in which they lie in memory
    :raises ValueError: if two arrays have the same name
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError(f"The names of the arrays of a layout must differ, got {names}")

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Layout":
        """:return: the layout that holds copies of the given arrays"""
        return cls(tuple(Field(name, array.shape, array.dtype.str) for name, array in arrays.items()))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each array begins, in bytes from the start of the block."""
        offsets, end = [], 0
        for field in self.fields:
            offsets.append(end)
            end = align(end + field.nbytes)
        return tuple(offsets)

    @cached_property
    def nbytes(self) -> int:
        """Size of the whole block in bytes, a multiple of ``ALIGNMENT``."""
        return align(self.offsets[-1] + self.fields[-1].nbytes) if self.fields else 0

    def views(self, memory: memoryview) -> dict[str, np.ndarray]:
        """
        :param memory: at least ``nbytes`` bytes
        :return: the arrays by name, over the given memory: writing to them writes to the memory
        :raises ValueError: if the memory is too small
        """
        if len(memory) < self.nbytes:
            raise ValueError(f"The layout needs {self.nbytes} bytes, but the memory has {len(memory)}")
        return {
            field.name: np.ndarray(field.shape, field.dtype, buffer=memory, offset=offset)
            for field, offset in zip(self.fields, self.offsets, strict=True)
        }
