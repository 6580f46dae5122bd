"""A minibatch made by several learners, as if it were one program."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch as th

from sb3_walle.gradient_workers.job import bound
from sb3_walle.gradient_workers.shared_minibatch import SharedMinibatch
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.shares import apply_half, gradient_half
from sb3_walle.updates.step import InputParts, UpdateStep


class _Stage(NamedTuple):
    """
    :param call: number of the call that workers make
    :param gradients: the same call for each rank, to be made here
    :param found: what the learners find, a row each
    :param step: makes a step of it
    """

    call: int
    gradients: list[Callable[[], object]]
    found: th.Tensor
    step: Program


class SharedProgram:
    """
    Does what the program of a whole step does: takes the same inputs, changes the same ones in place, and returns the
    same numbers, but for rounding.

    :param step: the whole step
    :param minibatch: where the learners look for their shares
    :param halves: programs of the halves of its stages
    :param workers: the other learners
    :param calls: names of the halves that workers make, in the order of their numbers
    """

    def __init__(
        self,
        step: UpdateStep,
        minibatch: SharedMinibatch,
        halves: Mapping[str, Program],
        workers: GradientWorkers,
        calls: tuple[str, ...],
    ) -> None:
        self._step, self._minibatch, self._workers = step, minibatch, workers
        ranks = (0, *workers.ranks)
        self._stages = []
        for stage in step.made:
            name = gradient_half(stage.name)
            gradients = [bound(halves[name], minibatch.share(stage.name, rank), minibatch.tensors) for rank in ranks]
            found, apply = minibatch.found_in(stage.name), halves[apply_half(stage.name)]
            self._stages.append(_Stage(calls.index(name), gradients, found, apply))
        self._n_statistics = [len(stage.statistics) for stage in step.made]

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        parts = self._step.parts(inputs)
        self._minibatch.fill(parts, self._step.vectors(parts.state))
        found = [self._make(stage, parts) for stage in self._stages]
        if len(found) == 1:
            return found[0]
        # Errors of samples come after all statistics.
        pairs = list(zip(found, self._n_statistics, strict=True))
        return th.cat([*(values[:n] for values, n in pairs), *(values[n:] for values, n in pairs)])

    def _make(self, stage: _Stage, parts: InputParts) -> th.Tensor:
        at_work = self._workers.ask(stage.call)
        for rank, gradient in enumerate(stage.gradients):
            if rank not in at_work:
                gradient()
        for rank in at_work:
            if not self._workers.has_done(rank):
                stage.gradients[rank]()
        parameters = self._minibatch.parameters
        return stage.step([*parts.state, *parameters, stage.found, parts.coefficients, *parts.adam])
