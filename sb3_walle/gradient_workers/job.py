"""What a gradient worker does: it makes calls on tensors in shared memory, and need not know what they compute."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch as th

from sb3_walle.gradient_workers.calls import BoundCall, Call
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.program_compiler import Program


@dataclass(frozen=True)
class Job:
    """
    :param memory: the shared memory
    :param layout: names and places of the tensors in it
    :param programs: files of programs, by name
    :param calls: what the learner asks for, by number
    :param line: the worker's end of its :class:`~sb3_walle.gradient_workers.line.Line` to the learner
    """

    memory: SharedMemory
    layout: Layout
    programs: Mapping[str, Path]
    calls: tuple[Call, ...]
    line: socket.socket

    def bound_calls(self) -> list[BoundCall]:
        """
        The calls, ready to be made.

        :raises Unsupported: if a program cannot be loaded
        """
        tensors = tensors_in(self.layout, self.memory)
        programs = {name: self.loaded(path) for name, path in self.programs.items()}
        return [call.bound(programs, tensors) for call in self.calls]

    def loaded(self, path: Path) -> Program:
        """The program in a file."""
        return NativeProgram(path)


def tensors_in(layout: Layout, memory: SharedMemory) -> dict[str, th.Tensor]:
    """The tensors of a layout. Each has a storage of its own, so that a file with one of them has no other in it."""
    return {name: th.from_numpy(array) for name, array in layout.views(memory.view).items()}
