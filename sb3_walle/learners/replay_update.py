"""Some gradient steps of an off-policy algorithm, with programs that somebody has compiled."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_walle.learners.compilation import Compiled
from sb3_walle.learners.minibatch_loop import agree
from sb3_walle.learners.replay_groups import Group
from sb3_walle.learners.replay_samples import check_kinds, tensors_of
from sb3_walle.learners.replay_trace import TracedReplayStep
from sb3_walle.learners.unsupported import Unsupported


class ReplayUpdate(ABC):
    """
    Does what SB3's ``train()`` does.

    :param algorithm: the algorithm
    :param groups: its groups of parameters
    """

    def __init__(self, algorithm: Any, groups: Sequence[Group]) -> None:
        self._algorithm, self._groups = algorithm, groups
        self._trained = [group for group in groups if group.optimizer is not None]
        first = next(algorithm.policy.parameters())
        self._kind_of_numbers = {"dtype": first.dtype, "device": first.device}
        self._gamma = self._tensor([algorithm.gamma])

    def train(
        self,
        gradient_steps: int,
        compiled: Mapping[str, Compiled[TracedReplayStep]],
        is_compared: bool,
        may_differ: bool = False,
    ) -> bool:
        """
        Update the policy from the replay buffer, and record what SB3 records.

        :param gradient_steps: number of gradient steps
        :param compiled: the steps by name
        :param is_compared: whether the first one is made eagerly, too, to compare the results
        :param may_differ: whether all steps are made eagerly if the results differ, which is an error otherwise
        :return: whether the results did not differ
        :raises Unsupported: if a program turns out not to do what the policy does; nothing has changed then
        """
        algorithm = self._algorithm
        # Whether the policy is in training mode makes no difference to what can be traced.
        algorithm._update_learning_rate([group.optimizer for group in self._trained])
        state = [tensor for group in self._groups for tensor in group.adopt().tensors()]
        random_states = np.random.get_state(), th.get_rng_state()
        statistics: list[tuple[TracedReplayStep, th.Tensor]] = []
        is_same = True
        for index in range(gradient_steps):
            traced, program = compiled[self._kind(index)]
            samples = algorithm.replay_buffer.sample(traced.batch_size, env=algorithm._vec_normalize_env)
            tensors = tensors_of(samples, self._gamma)
            noise = self._noise(samples.actions)
            adam = [self._adam(group) for group in self._trained]
            inputs = [*state, *tensors, *noise, self._coefficients(index), *adam]
            try:
                check_kinds(tensors, traced.samples)
                if is_compared and index == 0:
                    found, is_same = _in_both_ways(traced, program, inputs, may_differ)
                else:
                    found = program(inputs) if is_same else traced.step(*inputs)[0]
            except Unsupported:
                if index == 0:
                    # As if nothing had been sampled.
                    np.random.set_state(random_states[0])
                    th.set_rng_state(random_states[1])
                    raise
                found = traced.step(*inputs)[0]
            self._count(traced)
            statistics.append((traced, found))
        self._record(_columns(statistics))
        return is_same

    @abstractmethod
    def _kind(self, index: int) -> str:
        """
        :param index: index of a gradient step of this update
        :return: name of the program that makes it
        """

    @abstractmethod
    def _noise(self, actions: th.Tensor) -> list[th.Tensor]:
        """
        :param actions: actions of a minibatch, ``[B, action_dim]``
        :return: random numbers, drawn as SB3 draws them
        """

    @abstractmethod
    def _coefficients(self, index: int) -> th.Tensor:
        """
        :param index: index of a gradient step of this update
        :return: the numbers that the step names
        """

    @abstractmethod
    def _record(self, columns: Mapping[str, np.ndarray]) -> None:
        """
        Log what SB3 logs.

        :param columns: statistics of the gradient steps by name
        """

    @abstractmethod
    def _trained_by(self, traced: TracedReplayStep) -> tuple[str, ...]:
        """
        :param traced: a step
        :return: names of the groups whose optimizers it steps
        """

    def _count(self, traced: TracedReplayStep) -> None:
        names = self._trained_by(traced)
        for group in self._trained:
            if group.spec.name in names:
                group.count_steps(1)

    def _adam(self, group: Group) -> th.Tensor:
        assert group.spec.adam is not None
        return self._tensor(group.spec.adam.coefficients(group.learning_rate, group.n_steps, 1)[0])

    def _tensor(self, values: Sequence[float] | np.ndarray) -> th.Tensor:
        return th.as_tensor(np.asarray(values), **self._kind_of_numbers)


def _in_both_ways(
    traced: TracedReplayStep, program: Any, inputs: list[th.Tensor], may_differ: bool
) -> tuple[th.Tensor, bool]:
    """
    A step, made eagerly, too. If the results differ, it is the eager one that counts, if they may; otherwise raises
    ``Unsupported``, and nothing has changed then.
    """
    n = traced.n_in_place
    before, eager = ([tensor.clone() for tensor in inputs[:n]] for _ in range(2))
    expected = traced.step(*eager, *inputs[n:])[0]
    found: th.Tensor = program(inputs)
    if agree(before, eager, inputs[:n], expected, found):
        return found, True
    for tensor, value in zip(inputs[:n], eager if may_differ else before, strict=True):
        tensor.copy_(value)
    if not may_differ:
        raise Unsupported("the policy computes something else than it did when its update was compiled")
    return expected, False


def _columns(statistics: Sequence[tuple[TracedReplayStep, th.Tensor]]) -> dict[str, np.ndarray]:
    columns: dict[str, list[float]] = {}
    for traced, values in statistics:
        for name, value in zip(traced.step.statistics, values.tolist(), strict=True):
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}
