"""
What a learner does with its share of a minibatch and its slice of the vectors: calls on tensors in shared memory.

Whoever makes a call for a rank finds and leaves the same numbers, also where another process has begun it and died.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import NamedTuple, Protocol, TypeAlias

import torch as th

from sb3_walle.updates.program_compiler import Program

Tensors: TypeAlias = Mapping[str, th.Tensor]
BoundCall: TypeAlias = Callable[[], th.Tensor | None]


class Place(NamedTuple):
    """
    Where a tensor lies.

    :param field: name of a tensor in shared memory
    :param part: which part of it
    """

    field: str
    part: slice | int | tuple[slice | int, ...] | EllipsisType = ...

    def of(self, tensors: Tensors) -> th.Tensor:
        return tensors[self.field][self.part]


class Call(Protocol):
    """A call of one rank."""

    def bound(self, programs: Mapping[str, Program], tensors: Tensors) -> BoundCall:
        """The call, ready to be made."""


@dataclass(frozen=True)
class GradientCall:
    """
    Computes the gradient of a share.

    :param half: name of the program
    :param inputs: its inputs
    """

    half: str
    inputs: tuple[Place, ...]

    def bound(self, programs: Mapping[str, Program], tensors: Tensors) -> BoundCall:
        program, inputs = programs[self.half], [place.of(tensors) for place in self.inputs]
        return lambda: program(inputs)


@dataclass(frozen=True)
class SumCall:
    """
    Adds up a slice of the gradients that all learners have found, in the order of their ranks.

    :param parts: for each group the slice of all gradients, where their sum belongs, and where its norm
    """

    parts: tuple[tuple[Place, Place, Place], ...]

    def bound(self, programs: Mapping[str, Program], tensors: Tensors) -> BoundCall:
        parts = [
            (gradients.of(tensors).unbind(), total.of(tensors), norm.of(tensors))
            for gradients, total, norm in self.parts
        ]

        def add() -> None:
            for (first, *others), total, norm in parts:
                total.copy_(first)
                for other in others:
                    total.add_(other)
                th.linalg.vector_norm(total, out=norm)

        return add


@dataclass(frozen=True)
class StepCall:
    """
    Makes a step of a slice: first beside the state, and then in its place. A process that dies in between leaves a
    slice that is whole, in one of the two places.

    :param half: name of the program
    :param inputs: its inputs
    :param is_made: whether the slice beside the state is whole
    :param replaced: what takes the place of what
    """

    half: str
    inputs: tuple[Place, ...]
    is_made: Place
    replaced: tuple[tuple[Place, Place], ...]

    def bound(self, programs: Mapping[str, Program], tensors: Tensors) -> BoundCall:
        program, inputs = programs[self.half], [place.of(tensors) for place in self.inputs]
        is_made = self.is_made.of(tensors)
        replaced = [(old.of(tensors), new.of(tensors)) for old, new in self.replaced]

        def step() -> th.Tensor | None:
            found = None
            if not is_made:
                found = program(inputs)
                is_made.fill_(True)
            for old, new in replaced:
                old.copy_(new)
            return found

        return step
