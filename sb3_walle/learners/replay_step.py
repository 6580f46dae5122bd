"""One gradient step of an off-policy algorithm as a function of tensors: from weights to new weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.learners.clipping import clipped
from sb3_walle.learners.replay_groups import GroupSpec, GroupState
from sb3_walle.learners.substitution import substituted

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]


@dataclass(frozen=True)
class ReplayMinibatch:
    """
    What a gradient step learns from, and what it has to know besides. B is the number of samples.

    :param observations: ``[B, ...]``, or a dictionary of such tensors
    :param actions: ``[B, action_dim]``
    :param next_observations: as the observations
    :param dones: whether the episode ended there, and not because of a time limit, ``[B, 1]``
    :param rewards: ``[B, 1]``
    :param discounts: discount factor of what comes next, ``[B, 1]`` or ``[1]``
    :param noise: normal random numbers, as many as the step takes, ``[B, action_dim]`` each
    :param coefficients: numbers of the algorithm by name
    :param adam: for each optimizer, what depends on the number of its step, ``[3]``
    """

    observations: Observations
    actions: th.Tensor
    next_observations: Observations
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor
    noise: tuple[th.Tensor, ...]
    coefficients: Mapping[str, th.Tensor]
    adam: Mapping[str, th.Tensor]


class ReplayStep(ABC):
    """
    Calling it changes the state in place and returns the statistics. It takes and gives nothing but tensors, and looks
    at the value of none, so that it can be traced.

    :param policy: the policy
    :param groups: its groups of parameters, in the order in which the state holds them
    :param observation_keys: keys of observations that are dictionaries, otherwise ``None``
    """

    #: names of what it returns
    statistics: ClassVar[tuple[str, ...]]
    #: names of the numbers that it takes
    coefficients: ClassVar[tuple[str, ...]]
    #: how many tensors of random numbers it takes
    n_noise: ClassVar[int]

    def __init__(
        self, policy: BasePolicy, groups: Sequence[GroupSpec], observation_keys: tuple[str, ...] | None
    ) -> None:
        # Anything that a policy of SB3 has.
        self._policy: Any = policy
        self.groups = {group.name: group for group in groups}
        self._observation_keys = observation_keys

    @property
    def n_in_place(self) -> int:
        """Number of tensors that make up the state."""
        return sum(group.n_tensors for group in self.groups.values())

    @property
    def n_observations(self) -> int:
        """Number of tensors that make up the observations of a minibatch."""
        return 1 if self._observation_keys is None else len(self._observation_keys)

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        """
        :param inputs: the state's tensors, and those of the minibatch
        :return: the statistics
        """
        state, minibatch = self._state(inputs[: self.n_in_place]), self._minibatch(inputs[self.n_in_place :])
        new, statistics = self._step(state, minibatch)
        with th.no_grad():
            for name, changed in new.items():
                for before, after in zip(state[name].tensors(), changed.tensors(), strict=True):
                    before.copy_(after)
        return (th.stack([statistics[name].detach().reshape(()) for name in self.statistics]),)

    @abstractmethod
    def _step(
        self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch
    ) -> tuple[dict[str, GroupState], Mapping[str, th.Tensor]]:
        """
        :param state: the groups as they are
        :param minibatch: what to learn from
        :return: the groups that change, and the statistics
        """

    def _leaves(self, name: str, state: GroupState) -> list[th.Tensor]:
        """The parameters of a group, to differentiate with respect to them."""
        return [view.detach().requires_grad_() for view in self.groups[name].layout.views(state.vector)]

    @contextmanager
    def _with(self, name: str, parameters: Sequence[th.Tensor]) -> Iterator[None]:
        """Have the policy compute with these parameters of a group."""
        with substituted(self._policy, dict(zip(self.groups[name].names, parameters, strict=True))):
            yield

    def _views(self, name: str, state: GroupState) -> list[th.Tensor]:
        return self.groups[name].layout.views(state.vector)

    def _descended(
        self,
        name: str,
        state: GroupState,
        loss: th.Tensor,
        parameters: Sequence[th.Tensor],
        minibatch: ReplayMinibatch,
        max_norm: th.Tensor | None = None,
    ) -> GroupState:
        """A group after a step of its optimizer down the gradient of a loss, which may have a largest norm."""
        adam = self.groups[name].adam
        assert adam is not None
        gradient = th.cat([part.reshape(-1) for part in th.autograd.grad(loss, list(parameters))])
        with th.no_grad():
            if max_norm is not None:
                gradient, _ = clipped(gradient, max_norm)
            vector, moments = adam.step(state.vector, gradient, state.moments, minibatch.adam[name])
        return GroupState(vector, moments)

    @staticmethod
    def _followed(target: GroupState, leader: GroupState, tau: th.Tensor) -> GroupState:
        """A target after it has followed by a share of the way, which may be none."""
        return GroupState(target.vector * (1.0 - tau) + tau * leader.vector)

    def _state(self, tensors: Sequence[th.Tensor]) -> dict[str, GroupState]:
        state, rest = {}, list(tensors)
        for name, group in self.groups.items():
            (vector, *moments), rest = rest[: group.n_tensors], rest[group.n_tensors :]
            state[name] = GroupState(vector, tuple(moments))
        return state

    def _minibatch(self, tensors: Sequence[th.Tensor]) -> ReplayMinibatch:
        rest = iter(tensors)
        return ReplayMinibatch(
            self._observations(rest),
            next(rest),
            self._observations(rest),
            next(rest),
            next(rest),
            next(rest),
            tuple(next(rest) for _ in range(self.n_noise)),
            dict(zip(self.coefficients, next(rest).unbind(), strict=True)),
            {name: next(rest) for name, group in self.groups.items() if group.adam is not None},
        )

    def _observations(self, tensors: Iterator[th.Tensor]) -> Observations:
        if self._observation_keys is None:
            return next(tensors)
        return {key: next(tensors) for key in self._observation_keys}


def smallest_value(critic: Any, observations: Observations, actions: th.Tensor) -> th.Tensor:
    """
    :param critic: some critics
    :param observations: ``[B, ...]``
    :param actions: ``[B, action_dim]``
    :return: the smallest of their values, ``[B, 1]``
    """
    return th.cat(critic(observations, actions), dim=1).min(dim=1, keepdim=True).values
