"""A traced step on its way to a program: found on disk, compiled in the background, or recorded on a GPU."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch as th
from torch.fx import GraphModule

from sb3_walle.learners.captured import CapturedProgram
from sb3_walle.learners.minibatch_loop import Program
from sb3_walle.learners.native.blueprint import Blueprint
from sb3_walle.learners.native.build import Build
from sb3_walle.learners.native.program import NativeProgram
from sb3_walle.learners.native.store import ProgramStore
from sb3_walle.learners.unsupported import Unsupported

# With smaller minibatches, threads wait for each other longer than they compute. Images are always many numbers.
PARALLEL_BATCH_SIZE = 256
IMAGE_AXES = 3


class Traced(Protocol):
    """A step of an algorithm as a graph of operators."""

    @property
    def graph(self) -> GraphModule:
        """The graph."""

    @property
    def inputs(self) -> list[th.Tensor]:
        """An example of what it takes."""

    @property
    def n_in_place(self) -> int:
        """How many of the inputs, the first ones, it changes in place."""

    @property
    def batch_size(self) -> int:
        """Samples of the minibatch."""

    @property
    def observations(self) -> list[th.Tensor]:
        """Those of the inputs that are observations."""


class Compiling(Protocol):
    """Programs on their way."""

    @property
    def is_parallel(self) -> bool:
        """Whether the programs use as many threads as torch does, rather than one."""

    @property
    def is_begun(self) -> bool:
        """Whether the programs are there, or are being compiled."""

    @property
    def seconds(self) -> float | None:
        """How long it took to compile; ``None`` if it was not necessary."""

    def begin(self) -> None:
        """Have the programs compiled in the background, if they are not there already."""

    def compiled(self, wait: bool) -> Any:
        """
        :param wait: whether to wait for it
        :return: what an update takes, if it is there; ``None`` if not
        :raises Unsupported: if a program could not be compiled, or cannot be loaded
        """

    def close(self) -> None:
        """Stop compiling."""


TracedT = TypeVar("TracedT", bound=Traced)


class Compiled(NamedTuple, Generic[TracedT]):
    """
    A step in two forms.

    :param traced: as it was traced
    :param program: as machine code
    """

    traced: TracedT
    program: Program


class Compilation(Generic[TracedT]):
    """
    The program of a traced step, sooner or later.

    :param traced: the step
    :raises Unsupported: if there is no compiler for its device, or no place to keep programs
    """

    def __init__(self, traced: TracedT) -> None:
        self.traced = traced
        self._program: Program | None = None
        self._build: Build | None = None
        device = traced.inputs[0].device
        #: whether the program uses as many threads as torch does, rather than one
        self.is_parallel = device.type != "cpu" or _is_large(traced)
        if device.type == "cuda":
            self._program = CapturedProgram(traced.graph, traced.n_in_place)
        elif device.type == "cpu":
            self._blueprint = Blueprint.of(traced.graph, traced.inputs, self.is_parallel)
            self._store = ProgramStore()
            self._program = self._found()
        else:
            raise Unsupported(f"there is no compiler for the device '{device}'")

    @property
    def is_begun(self) -> bool:
        """Whether the program is there, or is being compiled."""
        return self._program is not None or self._build is not None

    @property
    def seconds(self) -> float | None:
        """How long it took to compile; ``None`` if it was not necessary."""
        return None if self._build is None else self._build.seconds

    def begin(self) -> None:
        """Have the program compiled in the background, if it is not there already."""
        if not self.is_begun:
            self._build = Build(self._blueprint, self._store.path(self._blueprint.key))

    def compiled(self, wait: bool) -> Compiled[TracedT] | None:
        """
        :param wait: whether to wait for it
        :return: the step and its program, if it is there
        :raises Unsupported: if it could not be compiled, or cannot be loaded
        """
        if self._program is None and self._build is not None and self._build.is_done(wait):
            self._program = NativeProgram(self._store.path(self._blueprint.key))
            self._store.make_room()
        return None if self._program is None else Compiled(self.traced, self._program)

    def close(self) -> None:
        """Stop compiling."""
        if self._build is not None:
            self._build.close()

    def _found(self) -> Program | None:
        key = self._blueprint.key
        if not self._store.has(key):
            return None
        try:
            program = NativeProgram(self._store.path(key))
        except Unsupported:
            # Whatever has happened to it, another one can be compiled.
            self._store.remove(key)
            return None
        self._store.note_use(key)
        return program


class Compilations(Generic[TracedT]):
    """
    Several programs, one compiled after the other.

    :param traced: the steps by name
    :raises Unsupported: if there is no compiler for their device, or no place to keep programs
    """

    def __init__(self, traced: Mapping[str, TracedT]) -> None:
        self._each = {name: Compilation(step) for name, step in traced.items()}

    @property
    def is_parallel(self) -> bool:
        """Whether the programs use as many threads as torch does, rather than one."""
        return any(one.is_parallel for one in self._each.values())

    @property
    def is_begun(self) -> bool:
        """Whether the programs are there, or are being compiled."""
        return next(iter(self._each.values())).is_begun

    @property
    def seconds(self) -> float | None:
        """How long it took to compile all of them; ``None`` if it was not necessary."""
        known = [one.seconds for one in self._each.values() if one.seconds is not None]
        return sum(known) if known else None

    def begin(self) -> None:
        """Have the programs compiled in the background, if they are not there already."""
        next(iter(self._each.values())).begin()

    def compiled(self, wait: bool) -> dict[str, Compiled[TracedT]] | None:
        """
        :param wait: whether to wait for them
        :return: the steps and their programs by name, if they are there
        :raises Unsupported: if a program could not be compiled, or cannot be loaded
        """
        found: dict[str, Compiled[TracedT]] = {}
        for name, one in self._each.items():
            if not one.is_begun and not self.is_begun:
                return None
            one.begin()
            compiled = one.compiled(wait)
            if compiled is None:
                return None
            found[name] = compiled
        return found

    def close(self) -> None:
        """Stop compiling."""
        for one in self._each.values():
            one.close()


def may_be_at_hand(device: th.device) -> bool:
    """
    :param device: where updates are made
    :return: whether there may be a program without waiting for a compiler
    """
    if device.type == "cuda":
        return True
    try:
        return ProgramStore().has_any()
    except Unsupported:
        return False


def _is_large(traced: Traced) -> bool:
    if th.get_num_threads() == 1:
        return False
    return traced.batch_size >= PARALLEL_BATCH_SIZE or any(len(part.shape) > IMAGE_AXES for part in traced.observations)
