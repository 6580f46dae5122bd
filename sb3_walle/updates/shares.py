"""
A minibatch divided among several learners.

Each learner computes the gradient of its share of the rows, as the terms of sums over the whole minibatch, so that the
gradients of all shares add up to that of the minibatch; so do the statistics. What comes after that is made once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch as th
from torch.fx import GraphModule

from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.global_state import random_states_kept
from sb3_walle.updates.parameter_groups import GroupState
from sb3_walle.updates.step import Gradient, InputParts, Minibatch, Share, Stage, State, UpdateStep
from sb3_walle.updates.traced_step import TracedStep
from sb3_walle.updates.tracing import copied_policy, trace
from sb3_walle.updates.unsupported import Unsupported


@dataclass(frozen=True)
class Shares:
    """
    Which rows of a minibatch each learner takes. All shares have the same size, so that one program fits all; where
    that is more than there are rows, the last shares overlap with those before, and these rows count only once.

    :param n_rows: rows of the whole minibatch
    :param n_learners: number of shares
    """

    n_rows: int
    n_learners: int

    @property
    def size(self) -> int:
        """Rows of each share."""
        return -(-self.n_rows // self.n_learners)

    @property
    def starts(self) -> list[int]:
        """Number of the first row of each share."""
        return [min(rank * self.size, self.n_rows - self.size) for rank in range(self.n_learners)]

    @property
    def n_repeated(self) -> list[int]:
        """For each share, how many of its rows, the first ones, belong to shares before it."""
        return [min(rank * self.size - start, self.size) for rank, start in enumerate(self.starts)]

    def weights(self) -> np.ndarray:
        """How much each row of each share counts in a mean over the whole minibatch, ``[n_learners, size]``."""
        counts = np.arange(self.size) >= np.array(self.n_repeated)[:, None]
        return counts / self.n_rows


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
class Division:
    """
    How the minibatches of an update are divided.

    :param shares: which rows each learner takes
    :param n_values: for each stage, by name, how many numbers a learner finds: the gradient, statistics, and errors
    :param halves: the halves of all stages, by :func:`gradient_half` and :func:`apply_half`
    """

    shares: Shares
    n_values: dict[str, int]
    halves: dict[str, TracedHalf]


def gradient_half(stage: str) -> str:
    """Name of the half of a stage that each learner makes."""
    return f"gradient of {stage}"


def apply_half(stage: str) -> str:
    """Name of the half of a stage that is made once."""
    return f"step of {stage}"


class GradientOfShare:
    """
    The first half of a stage, for the rows of one share. It writes into its first input what it has found: the
    gradients of the stage's groups, the statistics in the order of the stage, and the errors of samples, if any.
    The other inputs are the parameters of each group, fixed parameters, rows, noise, coefficients, the weights of the
    rows, and what the share sees of the whole minibatch.
    """

    def __init__(self, step: UpdateStep, stage: Stage) -> None:
        self._step, self._stage = step, stage

    def __call__(self, found: th.Tensor, *inputs: th.Tensor) -> tuple[th.Tensor]:
        rest = iter(inputs)
        spec = self._step.spec
        groups = {group.name: GroupState(next(rest)) for group in spec.groups}
        state = State(groups, (), tuple(next(rest) for _ in spec.fixed))
        minibatch = self._step.read_samples(rest)
        share = Share(next(rest), {name: next(rest) for name in self._step.seen_whole})
        gradient = self._step.gradient(self._stage, state, minibatch._replace(share=share))
        with th.no_grad():
            # The second half finds the others.
            zero = share.weights.new_zeros(())
            statistics = th.stack([gradient.statistics.get(name, zero) for name in self._stage.statistics])
            errors = [] if gradient.errors is None else [gradient.errors]
            found.copy_(th.cat([*gradient.vectors.values(), statistics, *errors]))
            return (statistics,)


class StepOfShares:
    """
    The second half of a stage, with what all learners have found. Its inputs are the tensors of the state, and the
    parameters of each group as the learners see them, both of which it changes in place; a row of numbers for each
    learner, the coefficients, and for each trained group those of Adam.
    """

    def __init__(self, step: UpdateStep, stage: Stage, shares: Shares) -> None:
        self._step, self._stage, self._shares = step, stage, shares

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        rest = iter(inputs)
        spec = self._step.spec
        groups = {group.name: GroupState.of([next(rest) for _ in range(group.n_tensors)]) for group in spec.groups}
        state, seen, table = State(groups), [next(rest) for _ in spec.groups], next(rest)
        coefficients = dict(zip(self._step.coefficients, next(rest).unbind(), strict=True))
        adam = {group.name: next(rest) for group in spec.trained}
        with th.no_grad():
            gradient = self._total(table, groups)
            minibatch = Minibatch(None, (), coefficients, adam)
            new, further = self._step.apply(self._stage, state, gradient, minibatch)
            statistics = {**gradient.statistics, **further}
            for before, after in zip(state.changing(), new.changing(), strict=True):
                if after is not before:
                    before.copy_(after)
            for shown, group in zip(seen, spec.groups, strict=True):
                if new.groups[group.name] is not state.groups[group.name]:
                    shown.copy_(new.groups[group.name].vector)
            errors = [] if gradient.errors is None else [gradient.errors]
            return (th.cat([th.stack([statistics[name] for name in self._stage.statistics]), *errors]),)

    def _total(self, table: th.Tensor, groups: Mapping[str, GroupState]) -> Gradient:
        """The sum of what the learners have found, added in the order of their ranks."""
        names = self._step.groups_of(self._stage)
        sizes = [len(groups[name].vector) for name in names]
        n_summed = sum(sizes) + len(self._stage.statistics)
        total = table[0, :n_summed]
        for row in table[1:, :n_summed].unbind():
            total = total + row
        *vectors, statistics = total.split([*sizes, len(self._stage.statistics)])
        errors = None
        if table.shape[1] > n_summed:
            errors = th.cat(
                [row[n_summed + n :] for row, n in zip(table.unbind(), self._shares.n_repeated, strict=True)]
            )
        return Gradient(
            dict(zip(names, vectors, strict=True)),
            dict(zip(self._stage.statistics, statistics.unbind(), strict=True)),
            (),
            {},
            errors,
        )


def divide(update: AlgorithmUpdate, steps: Mapping[str, TracedStep], n_learners: int) -> Division:
    """
    :param update: the update
    :param steps: its steps
    :param n_learners: number of shares
    :return: the division, with all that has to be compiled
    :raises Unsupported: if a sum over shares would be something else than the whole
    """
    first = next(iter(steps.values()))
    if first.eager.spec.buffers:
        raise Unsupported("the policy has buffers, as those of batch normalization, which see the whole minibatch")
    division = Division(Shares(first.batch_size, n_learners), {}, {})
    for step in steps.values():
        for stage in step.eager.made:
            if stage.name not in division.n_values:
                _add_stage(division, update, step, stage)
    return division


def shared_rows(column: th.Tensor, shares: Shares, rank: int) -> th.Tensor:
    """A share of the rows of a tensor; all of it if it has one row for all samples."""
    if len(column) != shares.n_rows:
        return column
    start = shares.starts[rank]
    return column[start : start + shares.size]


def seen_whole(step: UpdateStep, parts: InputParts) -> list[int]:
    """Numbers of the columns of which each share sees those of the whole minibatch."""
    rows = step.read_samples(iter([*parts.columns, parts.coefficients])).rows
    places = {id(column): index for index, column in enumerate(parts.columns)}
    return [places[id(getattr(rows, name))] for name in step.seen_whole]


def _add_stage(division: Division, update: AlgorithmUpdate, traced: TracedStep, stage: Stage) -> None:
    copied, shares = copied_policy(update.algorithm.policy), division.shares
    # As it is during an update. After a rollout it is in evaluation mode.
    copied.set_training_mode(True)
    step = update.step_class(copied, traced.eager.spec, [stage.name])
    parts = step.parts(traced.inputs)
    vectors = step.vectors(parts.state)
    n_values = sum(len(vectors[name]) for name in step.groups_of(stage)) + len(stage.statistics)
    n_values += shares.size if stage.has_errors else 0
    table = update.numbers(shares.n_learners, n_values)
    inputs_of_share = [
        table[0],
        *vectors.values(),
        *parts.fixed,
        *(shared_rows(column, shares, 0) for column in parts.columns),
        parts.coefficients,
        update.tensor(shares.weights()[0]),
        *(parts.columns[index] for index in seen_whole(step, parts)),
    ]
    changed = [*parts.state, *(vector.clone() for vector in vectors.values())]
    inputs_of_step = [*changed, table, parts.coefficients, *parts.adam]
    division.n_values[stage.name] = n_values
    with random_states_kept(update.algorithm.policy.device):
        gradient = trace(GradientOfShare(step, stage), inputs_of_share)
        division.halves[gradient_half(stage.name)] = TracedHalf(gradient, inputs_of_share, 1)
        apply = trace(StepOfShares(step, stage, shares), inputs_of_step)
        division.halves[apply_half(stage.name)] = TracedHalf(apply, inputs_of_step, len(changed))
