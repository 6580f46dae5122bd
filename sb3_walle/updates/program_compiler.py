"""Programs of traced steps: found on disk, compiled in the background, or recorded on a GPU."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch as th

from sb3_walle.updates.captured import CapturedProgram
from sb3_walle.updates.division import Division, TracedHalf
from sb3_walle.updates.minibatch_size import is_large
from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.native.build import Build
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.native.store import ProgramStore
from sb3_walle.updates.traced_step import TracedStep
from sb3_walle.updates.unsupported import Unsupported

#: takes what a step takes, in a list, does what it does, and returns its statistics
Program: TypeAlias = Callable[[list[th.Tensor]], th.Tensor]


class ProgramCompiler:
    """
    Compiles traced steps in the background, one after the other, unless their programs are on disk.

    :param steps: the steps
    :param division: how their minibatches are divided among learners, if they are: then the halves of their stages are
        compiled. Each learner computes with one thread
    :raises Unsupported: if there is no compiler for their device, or no place to keep programs
    """

    def __init__(self, steps: Mapping[str, TracedStep], division: Division | None = None) -> None:
        self.steps, self.division = dict(steps), division
        graphs: Mapping[str, TracedStep | TracedHalf] = self.steps if division is None else division.halves
        self._names = tuple(graphs)
        self._programs: dict[str, Program] = {}
        self._builds: list[Build] = []
        device = next(iter(steps.values())).inputs[0].device
        #: whether the programs use as many threads as torch does, rather than one
        self.is_parallel = device.type != "cpu" or (division is None and any(map(_is_large, steps.values())))
        if device.type == "cuda":
            self._programs = {name: CapturedProgram(step.graph, step.n_in_place) for name, step in graphs.items()}
        elif device.type == "cpu":
            self._store = ProgramStore()
            self._blueprints = {
                name: Blueprint.of(step.graph, step.inputs, self.is_parallel) for name, step in graphs.items()
            }
            self._programs = {name: program for name in graphs if (program := self._found(name)) is not None}
        else:
            raise Unsupported(f"there is no compiler for the device '{device}'")

    @property
    def is_begun(self) -> bool:
        """Whether some program is there, or is being compiled."""
        return bool(self._programs or self._builds)

    @property
    def seconds(self) -> float | None:
        """How long it took to compile; ``None`` if it was not necessary."""
        return sum(build.seconds for build in self._builds) if self._builds else None

    def begin(self) -> None:
        """Start compiling in the background what is not on disk."""
        missing = self._missing()
        if missing is not None and not self._builds:
            self._build(missing)

    def programs(self, wait: bool) -> dict[str, Program] | None:
        """
        The programs by name, once all are there.

        :raises Unsupported: if a program cannot be compiled or loaded
        """
        while (missing := self._missing()) is not None:
            if not self._builds:
                self._build(missing)
            if not self._builds[-1].is_done(wait):
                return None
            self._programs[missing] = NativeProgram(self._path(missing))
            self._store.make_room()
            following = self._missing()
            if following is not None:
                self._build(following)
        return self._programs

    def close(self) -> None:
        for build in self._builds:
            build.close()

    def _missing(self) -> str | None:
        return next((name for name in self._names if name not in self._programs), None)

    def _build(self, name: str) -> None:
        self._builds.append(Build(self._blueprints[name], self._path(name)))

    def _path(self, name: str) -> Path:
        return self._store.path(self._blueprints[name].key)

    def _found(self, name: str) -> Program | None:
        key = self._blueprints[name].key
        if not self._store.has(key):
            return None
        try:
            program = NativeProgram(self._path(name))
        except Unsupported:
            # This one is broken. Another one can be compiled.
            self._store.remove(key)
            return None
        self._store.note_use(key)
        return program


def may_be_at_hand(device: th.device) -> bool:
    """Whether there may be a program without waiting for a compiler."""
    if device.type == "cuda":
        return True
    try:
        return ProgramStore().has_any()
    except Unsupported:
        return False


def _is_large(step: TracedStep) -> bool:
    if th.get_num_threads() == 1:
        return False
    return is_large(step.batch_size, (part.shape[1:] for part in step.observations))
