"""What learners share: the state of the update, a minibatch, and what each of them finds."""

from collections.abc import Sequence

import torch as th

from sb3_walle.gradient_workers.calls import Call, GradientCall, Place, StepCall, SumCall
from sb3_walle.gradient_workers.job import tensors_in
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.division import Division, gradient_half, step_half
from sb3_walle.updates.parameter_groups import GroupState
from sb3_walle.updates.shares import seen_whole
from sb3_walle.updates.step import InputParts, UpdateStep

_COEFFICIENTS, _WEIGHTS, _IS_MADE = "coefficients", "weights", "slices that are made"


class SharedTensors:
    """
    :param step: a step of the update
    :param inputs: an example of its inputs
    :param division: how it is divided
    """

    def __init__(self, step: UpdateStep, inputs: Sequence[th.Tensor], division: Division) -> None:
        parts = step.parts(inputs)
        self._spec, self._division, self._seen_whole = step.spec, division, seen_whole(step, parts)
        self._has_rows = [len(column) == division.shares.n_rows for column in parts.columns]
        self._state = [(group.name, index) for group in step.spec.groups for index in range(group.n_tensors)]
        self._fixed = [f"fixed parameters {index}" for index in range(len(parts.fixed))]
        self._columns = [f"column {index}" for index in range(len(parts.columns))]
        self._adam = [f"Adam of {group.name}" for group in step.spec.trained]
        copied = [*self._fixed, *self._columns, _COEFFICIENTS, *self._adam]
        examples = (*parts.fixed, *parts.columns, parts.coefficients, *parts.adam)
        fields = [_field(name, example.shape, example) for name, example in zip(copied, examples, strict=True)]
        self.layout = Layout((*fields, *self._found_fields(parts.coefficients), *self._state_fields(parts.state)))
        self.memory = SharedMemory(self.layout.nbytes)
        self.tensors = tensors_in(self.layout, self.memory)
        self.tensors[_WEIGHTS].copy_(th.from_numpy(division.shares.weights()))
        self._copied = [self.tensors[name] for name in copied]
        self._are_made = self.tensors[_IS_MADE]

    def home(self, group: str) -> GroupState:
        """Where the state of a group belongs."""
        n = self._division.slices[group].n
        return GroupState.of([self.tensors[_state(*each)][:n] for each in self._state if each[0] == group])

    def fill(self, parts: InputParts) -> None:
        """Put a minibatch here."""
        values = (*parts.fixed, *parts.columns, parts.coefficients, *parts.adam)
        for place, tensor in zip(self._copied, values, strict=True):
            place.copy_(tensor)

    def before_step(self) -> None:
        """No slice of what comes next is made yet."""
        self._are_made.zero_()

    def calls(self, rank: int) -> list[Call]:
        """What a learner does in each stage, one stage after the other: :data:`CALLS_PER_STAGE` each."""
        return [
            call
            for stage in self._division.stages
            for call in (self._gradient(stage, rank), self._sum(stage, rank), self._step(stage, rank))
        ]

    def _gradient(self, stage: str, rank: int) -> Call:
        """A call of a :class:`~sb3_walle.updates.shares.GradientOfShare`."""
        groups, rows = self._division.stages[stage].groups, self._division.shares.rows(rank)
        return GradientCall(
            gradient_half(stage),
            (
                *(Place(_gradients(name), (rank, slice(self._division.slices[name].n))) for name in groups),
                Place(_numbers(stage), rank),
                *(Place(_state(name, 0), slice(self._division.slices[name].n)) for name in self._division.slices),
                *map(Place, self._fixed),
                *(Place(name, rows if each else ...) for name, each in zip(self._columns, self._has_rows, strict=True)),
                Place(_COEFFICIENTS),
                Place(_WEIGHTS, rank),
                *(Place(self._columns[index]) for index in self._seen_whole),
            ),
        )

    def _sum(self, stage: str, rank: int) -> Call:
        slices = {name: self._division.slices[name].part(rank) for name in self._division.stages[stage].groups}
        return SumCall(
            tuple(
                (Place(_gradients(name), (slice(None), part)), Place(_sum_of(name), part), Place(_norms(name), rank))
                for name, part in slices.items()
            )
        )

    def _step(self, stage: str, rank: int) -> Call:
        """A call of a :class:`~sb3_walle.updates.slices.StepOfSlice`."""
        parts = {name: slices.part(rank) for name, slices in self._division.slices.items()}
        old = [Place(_state(name, index), parts[name]) for name, index in self._state]
        new = [Place(_next(name, index), parts[name]) for name, index in self._state]
        divided = self._division.stages[stage]
        inputs = (
            *new,
            *old,
            *(Place(_sum_of(name), parts[name]) for name in divided.groups),
            *(Place(_norms(name)) for name in divided.groups),
            Place(_numbers(stage)),
            Place(_COEFFICIENTS),
            *map(Place, self._adam),
        )
        replaced = tuple((old[index], new[index]) for index in divided.changed)
        return StepCall(step_half(stage), inputs, Place(_IS_MADE, rank), replaced)

    def _found_fields(self, like: th.Tensor) -> list[Field]:
        division, n_learners = self._division, self._division.shares.n_learners
        fields = [
            _field(_WEIGHTS, (n_learners, division.shares.size), like),
            _field(_IS_MADE, (n_learners,), th.empty((), dtype=th.bool)),
        ]
        for stage, divided in division.stages.items():
            fields.append(_field(_numbers(stage), (n_learners, divided.n_numbers), like))
            for name in divided.groups:
                n = division.slices[name].n_with_room
                fields += [_field(_gradients(name), (n_learners, n), like), _field(_sum_of(name), (n,), like)]
                fields.append(_field(_norms(name), (n_learners,), like))
        return fields

    def _state_fields(self, state: Sequence[th.Tensor]) -> list[Field]:
        return [
            _field(name(group, index), (self._division.slices[group].n_with_room,), tensor)
            for (group, index), tensor in zip(self._state, state, strict=False)
            for name in (_state, _next)
        ]


#: gradient, sum, step
CALLS_PER_STAGE = 3


def _field(name: str, shape: Sequence[int], like: th.Tensor) -> Field:
    return Field(name, tuple(shape), like.detach().numpy().dtype.str)


def _state(group: str, index: int) -> str:
    return f"state {index} of {group}"


def _next(group: str, index: int) -> str:
    return f"next state {index} of {group}"


def _gradients(group: str) -> str:
    return f"gradients of {group}"


def _sum_of(group: str) -> str:
    return f"sum of gradients of {group}"


def _norms(group: str) -> str:
    return f"norms of slices of {group}"


def _numbers(stage: str) -> str:
    return f"numbers of {stage}"
