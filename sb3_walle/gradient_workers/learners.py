"""What an updater needs of gradient workers."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from sb3_walle.gradient_workers.job import Job
from sb3_walle.gradient_workers.shared_minibatch import SharedMinibatch
from sb3_walle.gradient_workers.shared_program import SharedProgram
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.shares import Division, gradient_half
from sb3_walle.updates.traced_step import TracedStep


@dataclass(frozen=True)
class _Shared:
    """A division at work: the halves that workers make, where they find their shares, and the programs of all steps."""

    division: Division
    halves: dict[str, NativeProgram]
    minibatch: SharedMinibatch
    programs: dict[str, Program]

    def job(self, rank: int, line: socket.socket) -> Job:
        """What a worker does."""
        calls = tuple(
            (self.halves[gradient_half(stage)].path, self.minibatch.share(stage, rank))
            for stage in self.division.n_values
        )
        return Job(self.minibatch.memory, self.minibatch.layout, calls, line)


class Learners:
    """
    This process and gradient workers. Described in the protocol :class:`~sb3_walle.updates.sharing.Sharing`.

    :param n_learners: number of processes, this one included
    """

    def __init__(self, n_learners: int) -> None:
        self.n_learners = n_learners
        self.workers = GradientWorkers(n_learners - 1)
        self._shared: _Shared | None = None
        self._owner = os.getpid()

    @property
    def n_restarts(self) -> int:
        return self.workers.n_restarts

    def prepare(self) -> None:
        self.workers.prepare()

    def begin(
        self, division: Division, steps: Mapping[str, TracedStep], halves: Mapping[str, Program]
    ) -> dict[str, Program]:
        # A fork of this process must not write to the memory that the two would share.
        is_owned = os.getpid() == self._owner
        if self._shared is None or self._shared.division is not division or not is_owned:
            self.workers.stop()
            self._shared, self._owner = self._share(division, steps, halves), os.getpid()
        self.workers.start(self._shared.job)
        self._shared.minibatch.forget_parameters()
        return self._shared.programs

    def close(self) -> None:
        self._shared = None
        self.workers.close()

    def _share(self, division: Division, steps: Mapping[str, TracedStep], halves: Mapping[str, Program]) -> _Shared:
        first = next(iter(steps.values()))
        minibatch = SharedMinibatch(first.eager, first.inputs, division)
        calls = tuple(gradient_half(stage) for stage in division.n_values)
        programs: dict[str, Program] = {
            name: SharedProgram(step.eager, minibatch, halves, self.workers, calls) for name, step in steps.items()
        }
        native = {name: half for name, half in halves.items() if isinstance(half, NativeProgram)}
        return _Shared(division, native, minibatch, programs)
