"""A minibatch made by several learners, as if it were one program."""

from collections.abc import Mapping, Sequence

import torch as th

from sb3_walle.gradient_workers.calls import BoundCall
from sb3_walle.gradient_workers.shared_tensors import CALLS_PER_STAGE, SharedTensors
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.step import UpdateStep


class SharedProgram:
    """
    Does what the program of a whole step does: takes the same inputs, changes the same ones in place, and returns the
    same numbers, but for rounding. The state must be at its :meth:`~SharedTensors.home`.

    :param step: the whole step
    :param shared: what the learners share
    :param halves: programs of the halves of all stages
    :param workers: the other learners
    :param stages: names of all stages that learners make calls for
    """

    def __init__(
        self,
        step: UpdateStep,
        shared: SharedTensors,
        halves: Mapping[str, Program],
        workers: GradientWorkers,
        stages: Sequence[str],
    ) -> None:
        self._step, self._shared, self._workers = step, shared, workers
        #: what is made here, by rank: the own ones, and those that no worker makes
        self.calls: list[list[BoundCall]] = [
            [call.bound(halves, shared.tensors) for call in shared.calls(rank)] for rank in (0, *workers.ranks)
        ]
        self._first_calls = [CALLS_PER_STAGE * list(stages).index(stage.name) for stage in step.made]
        self._n_statistics = [len(stage.statistics) for stage in step.made]

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        self._shared.fill(self._step.parts(inputs))
        found = [self._make(first) for first in self._first_calls]
        if len(found) == 1:
            return found[0]
        # Errors of samples come after all statistics.
        pairs = list(zip(found, self._n_statistics, strict=True))
        return th.cat([*(values[:n] for values, n in pairs), *(values[n:] for values, n in pairs)])

    def _make(self, first: int) -> th.Tensor:
        """Make a stage. Each call needs what all learners have found in the one before."""
        gradient, add, step = range(first, first + CALLS_PER_STAGE)
        self._have_made(gradient)
        self._have_made(add)
        self._shared.before_step()
        try:
            found = self._have_made(step)
        except BaseException:
            # Such as Ctrl-C. No slice is left a step behind the others.
            self._complete(step)
            raise
        assert found is not None
        return found

    def _complete(self, step: int) -> None:
        for rank in self._workers.busy:
            self._workers.has_done(rank)
        for calls in self.calls:
            calls[step]()

    def _have_made(self, call: int) -> th.Tensor | None:
        """Have all ranks make a call. Returns what that of this process has found."""
        at_work = self._workers.ask(call)
        found, *_ = [calls[call]() for rank, calls in enumerate(self.calls) if rank not in at_work]
        for rank in at_work:
            if not self._workers.has_done(rank):
                self.calls[rank][call]()
        return found
