"""What an updater needs of gradient workers."""

import os
import socket
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sb3_walle.gradient_workers.job import Job
from sb3_walle.gradient_workers.shared_program import SharedProgram
from sb3_walle.gradient_workers.shared_tensors import SharedTensors
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.updates.division import Division
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.parameter_groups import GroupState, ParameterGroup
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.traced_step import TracedStep


@dataclass(frozen=True)
class _Shared:
    """A division at work: what learners share, programs of the halves of its stages, and of all steps."""

    division: Division
    groups: Sequence[ParameterGroup]
    tensors: SharedTensors
    halves: dict[str, NativeProgram]
    programs: dict[str, Program]

    def job(self, rank: int, line: socket.socket) -> Job:
        """What a worker does."""
        paths = {name: program.path for name, program in self.halves.items()}
        return Job(self.tensors.memory, self.tensors.layout, paths, tuple(self.tensors.calls(rank)), line)


class Learners:
    """
    This process and gradient workers. Described in the protocol :class:`~sb3_walle.updates.sharing.Sharing`.

    :param n_learners: number of processes, this one included
    """

    def __init__(self, n_learners: int) -> None:
        self.n_learners = n_learners
        self.workers = GradientWorkers(n_learners - 1)
        self._shared: _Shared | None = None
        self._kept: list[GroupState | None] = []
        _all_learners.add(self)

    @property
    def n_restarts(self) -> int:
        return self.workers.n_restarts

    @property
    def are_ready(self) -> bool:
        return self.workers.n_ready_at_start == len(self.workers.ranks)

    def prepare(self) -> None:
        self.workers.prepare()

    def begin(
        self,
        division: Division,
        groups: Sequence[ParameterGroup],
        steps: Mapping[str, TracedStep],
        halves: Mapping[str, Program],
    ) -> dict[str, Program]:
        if self._shared is None or self._shared.division is not division:
            self.workers.stop()
            self._shared = self._share(division, groups, steps, halves)
        self.workers.start(self._shared.job)
        return self._shared.programs

    def close(self) -> None:
        self.workers.close()
        self._leave_shared_memory(self._copied_states())

    def _share(
        self,
        division: Division,
        groups: Sequence[ParameterGroup],
        steps: Mapping[str, TracedStep],
        halves: Mapping[str, Program],
    ) -> _Shared:
        first = next(iter(steps.values()))
        tensors = SharedTensors(first.eager, first.inputs, division)
        for group in groups:
            group.move_to(tensors.home(group.spec.name))
        programs: dict[str, Program] = {
            name: SharedProgram(step.eager, tensors, halves, self.workers, list(division.stages))
            for name, step in steps.items()
        }
        native = {name: half for name, half in halves.items() if isinstance(half, NativeProgram)}
        return _Shared(division, groups, tensors, native, programs)

    # A fork of this process would see what is learned here, and write to it. It gets a copy, as of all other memory.

    def before_fork(self) -> None:
        self._kept = self._copied_states()

    def after_fork_in_parent(self) -> None:
        self._kept = []

    def after_fork_in_child(self) -> None:
        self._leave_shared_memory(self._kept)
        self._kept = []

    def _copied_states(self) -> list[GroupState | None]:
        return [] if self._shared is None else [group.copied_state() for group in self._shared.groups]

    def _leave_shared_memory(self, states: Sequence[GroupState | None]) -> None:
        """:param states: copies of the groups' states, which take their place"""
        if self._shared is not None:
            for group, state in zip(self._shared.groups, states, strict=True):
                if state is not None:
                    group.replace(state)
        self._shared = None


_all_learners: "weakref.WeakSet[Learners]" = weakref.WeakSet()


def _before_fork() -> None:
    for learners in list(_all_learners):
        learners.before_fork()


def _after_fork_in_parent() -> None:
    for learners in list(_all_learners):
        learners.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for learners in list(_all_learners):
        learners.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
