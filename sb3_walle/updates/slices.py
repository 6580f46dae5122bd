"""
The vectors of an update, divided among several learners.

Each learner adds up its slice of the gradients that all have found, and makes the optimizer's step for that slice.
"""

from dataclasses import dataclass

import torch as th

from sb3_walle.updates.parameter_groups import GroupState
from sb3_walle.updates.shares import Shares
from sb3_walle.updates.step import Gradient, Minibatch, Stage, State, UpdateStep

# In numbers of single precision: no two processes write to the same one.
CACHE_LINE = 16


@dataclass(frozen=True)
class Slices:
    """
    Which part of a vector each learner takes. All slices have the same size, so that one program fits all. A vector has
    room for them behind its end, where gradients are zero.

    :param n: length of the vector
    :param n_learners: number of slices
    """

    n: int
    n_learners: int

    @property
    def size(self) -> int:
        """Length of each slice."""
        return -(-self.n // (self.n_learners * CACHE_LINE)) * CACHE_LINE

    @property
    def n_with_room(self) -> int:
        """Length of all slices together."""
        return self.size * self.n_learners

    def part(self, rank: int) -> slice:
        """A learner's slice."""
        return slice(rank * self.size, (rank + 1) * self.size)


class StepOfSlice:
    """
    The second half of a stage, for a slice of each vector. It writes into its first inputs the tensors of the state
    that the stage changes. The other inputs are the tensors of the state before; for each group of the stage its
    gradient; for each of them the norms of all slices, ``[n_learners]``; the statistics and errors of all shares,
    ``[n_learners, n]``; the coefficients, and for each trained group those of Adam.
    """

    def __init__(self, step: UpdateStep, stage: Stage, shares: Shares) -> None:
        self._step, self._stage, self._shares = step, stage, shares
        #: numbers of the tensors that it changes, as soon as it was called
        self.changed: tuple[int, ...] = ()

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        rest = iter(inputs)
        spec, names = self._step.spec, self._step.groups_of(self._stage)
        places = [next(rest) for group in spec.groups for _ in range(group.n_tensors)]
        groups = {group.name: GroupState.of([next(rest) for _ in range(group.n_tensors)]) for group in spec.groups}
        vectors, norms = ({name: next(rest) for name in names} for _ in range(2))
        numbers, coefficients = next(rest), next(rest)
        with th.no_grad():
            statistics, errors = self._added(numbers)
            norms = {name: th.linalg.vector_norm(of_slices) for name, of_slices in norms.items()}
            gradient, state = Gradient(vectors, statistics, (), {}, errors, norms), State(groups)
            by_name = dict(zip(self._step.coefficients, coefficients.unbind(), strict=True))
            minibatch = Minibatch(None, (), by_name, {group.name: next(rest) for group in spec.trained})
            new, further = self._step.apply(self._stage, state, gradient, minibatch)
            pairs = zip(state.changing(), new.changing(), strict=True)
            self.changed = tuple(index for index, (before, after) in enumerate(pairs) if after is not before)
            for index in self.changed:
                places[index].copy_(new.changing()[index])
            statistics |= further
            found = th.stack([statistics[name] for name in self._stage.statistics])
            return (found if errors is None else th.cat([found, errors]),)

    def _added(self, numbers: th.Tensor) -> tuple[dict[str, th.Tensor], th.Tensor | None]:
        """Statistics, added in the order of the learners, and the errors of all samples."""
        names = self._stage.statistics
        first, *others = numbers[:, : len(names)].unbind()
        for row in others:
            first = first + row
        statistics = dict(zip(names, first.unbind(), strict=True))
        if not self._stage.has_errors:
            return statistics, None
        errors = numbers[:, len(names) :].unbind()
        return statistics, th.cat([row[n:] for row, n in zip(errors, self._shares.n_repeated, strict=True)])
