"""A minibatch in shared memory, with the parameters that learners compute with and what they find."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch as th

from sb3_walle.gradient_workers.job import Place, tensors_in
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.shares import Division, seen_whole
from sb3_walle.updates.step import InputParts, UpdateStep

_COEFFICIENTS, _WEIGHTS = "coefficients", "weights"


class SharedMinibatch:
    """
    :param step: a step of the update
    :param inputs: an example of its inputs
    :param division: how minibatches are divided
    """

    def __init__(self, step: UpdateStep, inputs: Sequence[th.Tensor], division: Division) -> None:
        parts = step.parts(inputs)
        self._shares, self._seen_whole = division.shares, seen_whole(step, parts)
        self._has_rows = [len(column) == division.shares.n_rows for column in parts.columns]
        parameters = {f"parameters of {name}": vector for name, vector in step.vectors(parts.state).items()}
        fixed = {f"fixed parameters {index}": tensor for index, tensor in enumerate(parts.fixed)}
        columns = {f"column {index}": tensor for index, tensor in enumerate(parts.columns)}
        weights = division.shares.weights().astype(parts.coefficients.numpy().dtype)
        arrays = {
            name: tensor.detach().numpy()
            for name, tensor in {**parameters, **fixed, **columns, _COEFFICIENTS: parts.coefficients}.items()
        }
        found = {
            _found_in(stage): np.empty((division.shares.n_learners, n_values), weights.dtype)
            for stage, n_values in division.n_values.items()
        }
        self.layout = Layout.of({**arrays, _WEIGHTS: weights, **found})
        self.memory = SharedMemory(self.layout.nbytes)
        self.tensors = tensors_in(self.layout, self.memory)
        self.tensors[_WEIGHTS].copy_(th.from_numpy(weights))
        #: the parameters of each group
        self.parameters = [self.tensors[name] for name in parameters]
        self._versions: list[int] = []
        self._columns = tuple(columns)
        self._filled = [self.tensors[name] for name in (*fixed, *columns, _COEFFICIENTS)]
        self._seen_by_all = tuple(Place(name) for name in (*parameters, *fixed))

    def forget_parameters(self) -> None:
        """The parameters may have changed, as they do between updates."""
        self._versions = []

    def fill(self, parts: InputParts, vectors: Mapping[str, th.Tensor]) -> None:
        """
        Put a minibatch here, and the parameters, unless nothing has changed these but programs, which do so here, too.
        torch counts the changes that it makes itself, as in eager minibatches.
        """
        versions = [vector._version for vector in vectors.values()]
        if versions != self._versions:
            for place, vector in zip(self.parameters, vectors.values(), strict=True):
                place.copy_(vector)
            self._versions = versions
        for place, tensor in zip(self._filled, (*parts.fixed, *parts.columns, parts.coefficients), strict=True):
            place.copy_(tensor)

    def found_in(self, stage: str) -> th.Tensor:
        """What the learners find in a stage, a row each."""
        return self.tensors[_found_in(stage)]

    def share(self, stage: str, rank: int) -> tuple[Place, ...]:
        """Where the inputs of a :class:`~sb3_walle.updates.shares.GradientOfShare` lie."""
        start = self._shares.starts[rank]
        rows = slice(start, start + self._shares.size)
        return (
            Place(_found_in(stage), rank),
            *self._seen_by_all,
            *(Place(name, rows if each else ...) for name, each in zip(self._columns, self._has_rows, strict=True)),
            Place(_COEFFICIENTS),
            Place(_WEIGHTS, rank),
            *(Place(self._columns[index]) for index in self._seen_whole),
        )


def _found_in(stage: str) -> str:
    return f"found in {stage}"
