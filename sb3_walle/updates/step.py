"""
One minibatch of an algorithm as functions of tensors, in two halves: gradients, and what optimizers make of them.

An algorithm updates its parameters in stages. The gradients of a stage are taken at the parameters that the stage
before has left: in SAC and TD3, the actor follows the critics as they are after their own step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.updates.flat import FlatLayout
from sb3_walle.updates.parameter_groups import GroupSpec, GroupState
from sb3_walle.updates.substitution import substituted

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
#: the parameters of each group, as tensors of their own shapes
Parameters: TypeAlias = Mapping[str, Sequence[th.Tensor]]

# Fields of a minibatch that are dictionaries where observations are.
_OBSERVATIONS = ("observations", "next_observations")


@dataclass(frozen=True)
class Stage:
    """
    :param name: what the algorithm calls it
    :param groups: the groups of parameters that it trains, of those that there are
    :param statistics: names of the numbers that it logs
    :param has_errors: whether it returns temporal-difference errors of the samples
    """

    name: str
    groups: tuple[str, ...]
    statistics: tuple[str, ...]
    has_errors: bool = False


@dataclass(frozen=True)
class StepSpec:
    """
    What a step needs to know in addition to the minibatch.

    :param groups: groups of parameters, in the order in which the state holds them
    :param fixed: names of the policy's parameters that are in no group
    :param observation_keys: keys of ``Dict`` observations, otherwise ``None``
    :param variant: what of the algorithm's loss is not a number
    """

    groups: tuple[GroupSpec, ...]
    fixed: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    observation_keys: tuple[str, ...] | None = None
    variant: Any = None

    @property
    def trained(self) -> tuple[GroupSpec, ...]:
        """The groups that have an optimizer."""
        return tuple(group for group in self.groups if group.adam is not None)


class State(NamedTuple):
    """
    What an update changes: vectors of parameters, moments and gradients by group, and the policy's buffers, such as
    running statistics; and the ``fixed`` parameters, which no step changes.
    """

    groups: dict[str, GroupState]
    buffers: tuple[th.Tensor, ...] = ()
    fixed: tuple[th.Tensor, ...] = ()

    def changing(self) -> list[th.Tensor]:
        """The tensors that a step may change, in the order in which it takes them."""
        return [*(tensor for group in self.groups.values() for tensor in group.tensors()), *self.buffers]


class Share(NamedTuple):
    """
    What makes a minibatch of S samples a share of a larger one.

    :param weights: how much each sample counts in a mean over the whole minibatch, ``[S]``
    :param whole: fields of the whole minibatch, by name: :attr:`UpdateStep.seen_whole`
    """

    weights: th.Tensor
    whole: Mapping[str, th.Tensor]


class InputParts(NamedTuple):
    """
    The inputs of a step in groups, in order.

    :param state: what the step changes in place
    :param fixed: the policy's parameters that no step changes
    :param columns: the samples' fields and random numbers, which have an axis of samples, or count for all of them
    :param coefficients: the algorithm's, in one tensor
    :param adam: for each trained group, those of its optimizer
    """

    state: list[th.Tensor]
    fixed: list[th.Tensor]
    columns: list[th.Tensor]
    coefficients: th.Tensor
    adam: list[th.Tensor]


class Minibatch(NamedTuple):
    """
    :param rows: the samples, as :attr:`UpdateStep.rows` names their fields
    :param noise: normal random numbers, ``[B, action_dim]`` each
    :param coefficients: numbers of the algorithm by name, ``[]`` each
    :param adam: for each trained group, a row of :meth:`AdamSettings.coefficients`, ``[3]``
    :param share: ``None`` if the samples are the whole minibatch
    """

    rows: Any
    noise: tuple[th.Tensor, ...]
    coefficients: dict[str, th.Tensor]
    adam: dict[str, th.Tensor]
    share: Share | None = None

    def mean(self, values: th.Tensor) -> th.Tensor:
        """Mean over the whole minibatch; of a share, its part of that mean. The parts of all shares add up to it."""
        if self.share is None:
            return values.mean()
        return (values.reshape(len(values), -1).mean(dim=1) * self.share.weights).sum()

    def whole(self, name: str) -> th.Tensor:
        """A field of the rows, of the whole minibatch."""
        field: th.Tensor = getattr(self.rows, name) if self.share is None else self.share.whole[name]
        return field


@dataclass(frozen=True)
class Losses:
    """
    :param of_groups: what each group of a stage minimises
    :param statistics: numbers to log, by name
    :param sizes: how large the terms are that cancel in a gradient or statistic: the measure for its rounding
    :param errors: temporal-difference errors of the samples, ``[B, 1]``, if the step returns them
    """

    of_groups: dict[str, th.Tensor]
    statistics: dict[str, th.Tensor]
    sizes: dict[str, th.Tensor] = field(default_factory=dict)
    errors: th.Tensor | None = None


class Gradient(NamedTuple):
    """
    :param vectors: the gradient of each group of a stage, ``[n]``, or the same slice of each
    :param statistics: numbers to log, by name
    :param buffers: the policy's buffers after the forward pass
    :param sizes: as in :class:`Losses`
    :param errors: temporal-difference errors, ``[B]``, if the stage has some
    :param norms: the norm of each whole gradient, ``[]``, where the vectors are slices
    """

    vectors: dict[str, th.Tensor]
    statistics: dict[str, th.Tensor]
    buffers: tuple[th.Tensor, ...]
    sizes: dict[str, th.Tensor]
    errors: th.Tensor | None = None
    norms: Mapping[str, th.Tensor] | None = None

    def norm(self, group: str) -> th.Tensor:
        """Norm of the whole gradient of a group, ``[]``."""
        return th.linalg.vector_norm(self.vectors[group]) if self.norms is None else self.norms[group]


class UpdateStep(ABC):
    """
    One minibatch of an algorithm. An algorithm declares its stages and their losses; :meth:`gradient` and :meth:`apply`
    are the two halves of a stage. Calling the object makes both, for all stages, changes the state in place and returns
    the statistics. It takes and returns tensors only and never looks at a value, so it can be traced.

    :param policy: the policy
    :param spec: what it takes
    :param stages: names of the stages to make, of all of them
    """

    #: all stages, in order
    stages: ClassVar[tuple[Stage, ...]]
    #: what the samples consist of, a ``NamedTuple``
    rows: ClassVar[Any]
    #: names of the numbers that it takes
    coefficients: ClassVar[tuple[str, ...]]
    #: how many tensors of random numbers it takes
    n_noise: ClassVar[int] = 0
    #: fields of the rows of which a share needs to see those of the whole minibatch
    seen_whole: ClassVar[tuple[str, ...]] = ()
    #: how far statistics may differ by rounding, relative to numbers above 1
    max_difference: ClassVar[float] = 1e-3

    def __init__(self, policy: BasePolicy, spec: StepSpec, stages: Sequence[str]) -> None:
        # Anything that a policy of SB3 has.
        self._policy: Any = policy
        self.spec = spec
        self._groups = {group.name: group for group in spec.groups}
        #: the stages that it makes
        self.made = tuple(stage for stage in self.stages if stage.name in stages)
        #: names of the groups that it trains
        self.trained = tuple(name for stage in self.made for name in self.groups_of(stage))
        #: names of the numbers that it returns
        self.statistics = tuple(name for stage in self.made for name in stage.statistics)

    @abstractmethod
    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        """
        :param stage: name of a stage
        :param parameters: the parameters of each group; the policy computes with them during this call
        :param minibatch: what to learn from
        :return: what the groups of the stage minimise, and what is logged
        """

    def gradient(self, stage: Stage, state: State, minibatch: Minibatch) -> Gradient:
        """
        The first half of a stage. It changes nothing in place.

        :param stage: the stage
        :param state: the groups as the stage before has left them
        :param minibatch: what to learn from
        """
        parameters = {name: self._groups[name].layout.views(group.vector) for name, group in state.groups.items()}
        for name in self.groups_of(stage):
            parameters[name] = [view.detach().requires_grad_() for view in parameters[name]]
        buffers = [buffer.clone() for buffer in state.buffers]
        with th.enable_grad(), substituted(self._policy, self._named(parameters, state.fixed, buffers)):
            losses = self.losses(stage.name, parameters, minibatch)
            vectors = {
                name: FlatLayout.flatten(th.autograd.grad(losses.of_groups[name], parameters[name]))
                for name in self.groups_of(stage)
            }
            # They may have been changed, or be others by now.
            found = dict(self._policy.named_buffers()) if buffers else {}
        statistics, sizes = (
            {name: value.detach().reshape(()) for name, value in some.items()}
            for some in (losses.statistics, losses.sizes)
        )
        errors = None if losses.errors is None else losses.errors.detach().reshape(-1)
        return Gradient(vectors, statistics, tuple(found[name] for name in self.spec.buffers), sizes, errors)

    def apply(
        self, stage: Stage, state: State, gradient: Gradient, minibatch: Minibatch
    ) -> tuple[State, dict[str, th.Tensor]]:
        """
        The second half of a stage. It changes nothing in place. But for the norms of gradients, it takes and makes each
        element of a vector by itself, so that state and gradients may be the same slice of all vectors.

        :param stage: the stage
        :param state: the state that the gradients were taken at
        :param gradient: the gradients
        :param minibatch: its coefficients are used, its samples are not
        :return: the state after the stage, and further statistics
        """
        groups = dict(state.groups)
        with th.no_grad():
            for name, vector in gradient.vectors.items():
                adam, before = self._groups[name].adam, groups[name]
                assert adam is not None
                parameters, moments = adam.step(before.vector, vector, before.moments, minibatch.adam[name])
                groups[name] = GroupState(parameters, moments, vector)
        return State(groups, gradient.buffers, state.fixed), {}

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        """
        :param inputs: the tensors of the state, then those of the minibatch
        :return: the statistics, in the order of :attr:`statistics`, and after them the errors of the samples, if any
        """
        state, minibatch = self.unpacked(inputs)
        new, statistics, errors = state, [], []
        for stage in self.made:
            gradient = self.gradient(stage, new, minibatch)
            new, further = self.apply(stage, new, gradient, minibatch)
            found = {**gradient.statistics, **further}
            statistics += [found[name] for name in stage.statistics]
            errors += [] if gradient.errors is None else [gradient.errors]
        with th.no_grad():
            for before, after in zip(state.changing(), new.changing(), strict=True):
                if after is not before:
                    before.copy_(after)
            return (th.cat([th.stack(statistics), *errors]),)

    def unpacked(self, inputs: Sequence[th.Tensor]) -> tuple[State, Minibatch]:
        """The inputs of a call by name."""
        rest = iter(inputs)
        groups = {group.name: GroupState.of([next(rest) for _ in range(group.n_tensors)]) for group in self.spec.groups}
        state = State(groups, tuple(next(rest) for _ in self.spec.buffers), tuple(next(rest) for _ in self.spec.fixed))
        minibatch = self.read_samples(rest)
        return state, minibatch._replace(adam={group.name: next(rest) for group in self.spec.trained})

    def parts(self, inputs: Sequence[th.Tensor]) -> InputParts:
        """The inputs of a call in groups."""
        spec = self.spec
        first_fixed = sum(group.n_tensors for group in spec.groups) + len(spec.buffers)
        first_column, first_adam = first_fixed + len(spec.fixed), len(inputs) - len(spec.trained)
        bounds = [0, first_fixed, first_column, first_adam - 1, first_adam, len(inputs)]
        state, fixed, columns, (coefficients,), adam = (list(inputs[start:stop]) for start, stop in pairwise(bounds))
        return InputParts(state, fixed, columns, coefficients, adam)

    def vectors(self, state: Sequence[th.Tensor]) -> dict[str, th.Tensor]:
        """Of the tensors of a state, the parameters of each group."""
        firsts = accumulate((group.n_tensors for group in self.spec.groups), initial=0)
        return {group.name: state[first] for group, first in zip(self.spec.groups, firsts, strict=False)}

    def read_samples(self, tensors: Iterator[th.Tensor]) -> Minibatch:
        """The next tensors as a minibatch without what only optimizers take."""
        return Minibatch(
            self.rows(*(self._field(name, tensors) for name in self.rows._fields)),
            tuple(next(tensors) for _ in range(self.n_noise)),
            dict(zip(self.coefficients, next(tensors).unbind(), strict=True)),
            {},
        )

    def groups_of(self, stage: Stage) -> list[str]:
        """Names of the groups that a stage trains, of those that there are."""
        return [name for name in stage.groups if name in self._groups]

    def _field(self, name: str, tensors: Iterator[th.Tensor]) -> Observations:
        if name not in _OBSERVATIONS or self.spec.observation_keys is None:
            return next(tensors)
        return {key: next(tensors) for key in self.spec.observation_keys}

    def _named(
        self, parameters: Parameters, fixed: Sequence[th.Tensor], buffers: Sequence[th.Tensor]
    ) -> dict[str, th.Tensor]:
        """Tensors by their names in the policy. Groups outside of it have no names there."""
        named = dict(zip(self.spec.fixed, fixed, strict=True)) | dict(zip(self.spec.buffers, buffers, strict=True))
        for name, tensors in parameters.items():
            named |= dict(zip(self._groups[name].names, tensors, strict=False))
        return named
