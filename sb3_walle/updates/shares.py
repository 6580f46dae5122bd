"""
The rows of a minibatch, divided among several learners.

Each learner computes the gradient of its share of the rows, as the terms of sums over the whole minibatch, so that the
gradients of all shares add up to that of the minibatch; so do the statistics.
"""

from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_walle.updates.parameter_groups import GroupState
from sb3_walle.updates.step import InputParts, Share, Stage, State, UpdateStep


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

    def rows(self, rank: int) -> slice:
        """The rows of a share."""
        start = self.starts[rank]
        return slice(start, start + self.size)


class GradientOfShare:
    """
    The first half of a stage, for the rows of one share. It writes into its first inputs what it finds: the gradient of
    each of the stage's groups, and the statistics in the order of the stage with the errors of samples, if any, after
    them. The other inputs are the parameters of each group, fixed parameters, rows, noise, coefficients, the weights of
    the rows, and what the share sees of the whole minibatch.
    """

    def __init__(self, step: UpdateStep, stage: Stage) -> None:
        self._step, self._stage = step, stage

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        rest = iter(inputs)
        spec = self._step.spec
        gradients = {name: next(rest) for name in self._step.groups_of(self._stage)}
        numbers = next(rest)
        groups = {group.name: GroupState(next(rest)) for group in spec.groups}
        state = State(groups, (), tuple(next(rest) for _ in spec.fixed))
        minibatch = self._step.read_samples(rest)
        share = Share(next(rest), {name: next(rest) for name in self._step.seen_whole})
        found = self._step.gradient(self._stage, state, minibatch._replace(share=share))
        with th.no_grad():
            for name, vector in found.vectors.items():
                gradients[name].copy_(vector)
            # The second half finds the others.
            zero = share.weights.new_zeros(())
            statistics = th.stack([found.statistics.get(name, zero) for name in self._stage.statistics])
            numbers.copy_(statistics if found.errors is None else th.cat([statistics, found.errors]))
            return (statistics,)


def seen_whole(step: UpdateStep, parts: InputParts) -> list[int]:
    """Numbers of the columns of which each share sees those of the whole minibatch."""
    rows = step.read_samples(iter([*parts.columns, parts.coefficients])).rows
    places = {id(column): index for index, column in enumerate(parts.columns)}
    return [places[id(getattr(rows, name))] for name in step.seen_whole]
