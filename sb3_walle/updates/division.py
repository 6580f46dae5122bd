"""An update divided among several learners: which parts there are, and their graphs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch as th
from torch.fx import GraphModule

from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.global_state import random_states_kept
from sb3_walle.updates.shares import GradientOfShare, Shares, seen_whole
from sb3_walle.updates.slices import Slices, StepOfSlice
from sb3_walle.updates.step import Stage, UpdateStep
from sb3_walle.updates.traced_step import TracedStep
from sb3_walle.updates.tracing import copied_policy, trace
from sb3_walle.updates.unsupported import Unsupported


@dataclass(frozen=True)
class TracedHalf:
    """
    One half of a stage as a graph of operators.

    :param inputs: an example of its inputs
    :param n_in_place: how many of the inputs, the first ones, are changed in place
    """

    graph: GraphModule
    inputs: list[th.Tensor]
    n_in_place: int


@dataclass(frozen=True)
class DividedStage:
    """
    :param groups: the groups that it trains
    :param n_numbers: how many statistics and errors of samples a learner finds
    :param changed: numbers of the tensors of the state that it changes
    """

    groups: tuple[str, ...]
    n_numbers: int
    changed: tuple[int, ...]


@dataclass(frozen=True)
class Division:
    """
    How an update is divided.

    :param shares: which rows of a minibatch each learner takes
    :param slices: which part of the vectors of each group
    :param stages: all stages by name, in the order of the algorithm
    :param halves: the halves of all stages, by :func:`gradient_half` and :func:`step_half`
    """

    shares: Shares
    slices: dict[str, Slices]
    stages: dict[str, DividedStage]
    halves: dict[str, TracedHalf]


def gradient_half(stage: str) -> str:
    """Name of the half of a stage that is made for each share."""
    return f"gradient of {stage}"


def step_half(stage: str) -> str:
    """Name of the half of a stage that is made for each slice."""
    return f"step of {stage}"


def divide(update: AlgorithmUpdate, steps: Mapping[str, TracedStep], n_learners: int) -> Division:
    """
    :param update: the update
    :param steps: its steps
    :param n_learners: number of learners
    :return: the division, with all that has to be compiled
    :raises Unsupported: if a sum over shares would be something else than the whole
    """
    first = next(iter(steps.values()))
    if first.eager.spec.buffers:
        raise Unsupported("the policy has buffers, as those of batch normalization, which see the whole minibatch")
    vectors = first.eager.vectors(first.eager.parts(first.inputs).state)
    slices = {name: Slices(len(vector), n_learners) for name, vector in vectors.items()}
    division = Division(Shares(first.batch_size, n_learners), slices, {}, {})
    for step in steps.values():
        for stage in step.eager.made:
            if stage.name not in division.stages:
                _add_stage(division, update, step, stage)
    return division


def _add_stage(division: Division, update: AlgorithmUpdate, traced: TracedStep, stage: Stage) -> None:
    copied = copied_policy(update.algorithm.policy)
    # As it is during an update. After a rollout it is in evaluation mode.
    copied.set_training_mode(True)
    step = update.step_class(copied, traced.eager.spec, [stage.name])
    groups = tuple(step.groups_of(stage))
    n_numbers = len(stage.statistics) + (division.shares.size if stage.has_errors else 0)
    examples = _Examples(division, update, step, traced.inputs, groups, n_numbers)
    with random_states_kept(update.algorithm.policy.device):
        inputs, n_in_place = examples.of_gradient()
        graph = trace(GradientOfShare(step, stage), inputs)
        division.halves[gradient_half(stage.name)] = TracedHalf(graph, inputs, n_in_place)
        inputs, n_in_place = examples.of_step()
        half = StepOfSlice(step, stage, division.shares)
        division.halves[step_half(stage.name)] = TracedHalf(trace(half, inputs), inputs, n_in_place)
    division.stages[stage.name] = DividedStage(groups, n_numbers, half.changed)


@dataclass(frozen=True)
class _Examples:
    """
    Examples of the inputs of both halves of a stage, and how many of them, the first ones, are changed in place.

    :param whole: an example of the whole step's inputs
    :param groups: the groups that the stage trains
    :param n_numbers: how many statistics and errors of samples a learner finds
    """

    division: Division
    update: AlgorithmUpdate
    step: UpdateStep
    whole: list[th.Tensor]
    groups: tuple[str, ...]
    n_numbers: int

    def of_gradient(self) -> tuple[list[th.Tensor], int]:
        shares, update, step = self.division.shares, self.update, self.step
        parts = step.parts(self.whole)
        vectors, rows = step.vectors(parts.state), shares.rows(0)
        inputs = [
            *(vectors[name].clone() for name in self.groups),
            update.numbers(self.n_numbers),
            *vectors.values(),
            *parts.fixed,
            *(column[rows] if len(column) == shares.n_rows else column for column in parts.columns),
            parts.coefficients,
            update.tensor(shares.weights()[0]),
            *(parts.columns[index] for index in seen_whole(step, parts)),
        ]
        return inputs, len(self.groups) + 1

    def of_step(self) -> tuple[list[th.Tensor], int]:
        slices, n_learners, update = self.division.slices, self.division.shares.n_learners, self.update
        parts = self.step.parts(self.whole)
        sizes = [slices[group.name].size for group in self.step.spec.groups for _ in range(group.n_tensors)]
        inputs = [
            *(update.numbers(size) for _ in range(2) for size in sizes),
            *(update.numbers(slices[name].size) for name in self.groups),
            *(update.numbers(n_learners) for _ in self.groups),
            update.numbers(n_learners, self.n_numbers),
            parts.coefficients,
            *parts.adam,
        ]
        return inputs, len(sizes)
