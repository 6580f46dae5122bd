"""What a gradient worker does: it runs programs on tensors in shared memory, and need not know what they compute."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import NamedTuple

import torch as th

from sb3_walle.transport.layout import Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.native.program import NativeProgram


class Place(NamedTuple):
    """
    Where an input of a program lies.

    :param field: name of a tensor in shared memory
    :param part: which part of it
    """

    field: str
    part: slice | int | EllipsisType = ...


@dataclass(frozen=True)
class Job:
    """
    :param memory: the shared memory
    :param layout: names and places of the tensors in it
    :param calls: what a learner asks for, by number: the program's file, and its inputs
    :param line: the worker's end of its :class:`~sb3_walle.gradient_workers.line.Line` to the learner
    """

    memory: SharedMemory
    layout: Layout
    calls: tuple[tuple[Path, tuple[Place, ...]], ...]
    line: socket.socket

    def bound_calls(self) -> list[Callable[[], object]]:
        """
        The calls, ready to be made.

        :raises Unsupported: if a program cannot be loaded
        """
        tensors = tensors_in(self.layout, self.memory)
        return [bound(NativeProgram(path), places, tensors) for path, places in self.calls]


def tensors_in(layout: Layout, memory: SharedMemory) -> dict[str, th.Tensor]:
    """The tensors of a layout. Each has a storage of its own, so that a file with one of them has no other in it."""
    return {name: th.from_numpy(array) for name, array in layout.views(memory.view).items()}


def bound(
    program: Callable[[list[th.Tensor]], object], places: Sequence[Place], tensors: Mapping[str, th.Tensor]
) -> Callable[[], object]:
    """A call of a program with the tensors at some places."""
    inputs = [tensors[place.field][place.part] for place in places]
    return lambda: program(inputs)
