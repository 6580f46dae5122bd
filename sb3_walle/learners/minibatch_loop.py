"""The loop over minibatches, which must cost nothing beside the minibatches themselves."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch as th

from sb3_walle.learners.ppo_step import DONE, PPOStep, StepState
from sb3_walle.learners.unsupported import Unsupported

#: takes what a step takes, in a list, does what it does, and returns its statistics
Program: TypeAlias = Callable[[list[th.Tensor]], th.Tensor]

# How far the compiled step may be from the eager one. Rounding makes them differ by far less. What this is to find is a
# policy that computes something else than when it was traced.
MAX_DIFFERENCE = 1e-3
MAX_GRADIENT_DIFFERENCE = 1e-2
# Where squashed actions are at their bounds, their log-probabilities lose most of their digits, in SB3, too.
MAX_LOSS_DIFFERENCE = 5e-2
# Adam makes full steps of gradients that are zero but for rounding, as before a batch normalization.
MAX_STEP_DIFFERENCE = 0.5


class MinibatchLoop:
    """
    Gives one minibatch after the other to a program.

    The first one can be done eagerly, too, to compare the results, so that no policy that has changed in a way that
    nobody could foresee is trained wrongly.

    :param step: one minibatch, eagerly
    :param program: one minibatch, compiled
    :param batch_size: samples of the minibatches that the program takes; others are done eagerly
    :param state: what steps change in place
    :param fixed: the policy's other parameters
    :param coefficients: those that stay the same
    :param optimizer_coefficients: those of each minibatch
    :param may_stop: whether a minibatch may be refused, as its outcome says
    :param is_compared: whether the first one is done in both ways
    """

    def __init__(
        self,
        step: PPOStep,
        program: Program,
        batch_size: int,
        state: StepState,
        fixed: Sequence[th.Tensor],
        coefficients: Sequence[th.Tensor],
        optimizer_coefficients: Sequence[th.Tensor],
        may_stop: bool,
        is_compared: bool,
    ) -> None:
        self.state = state
        #: what each minibatch has returned
        self.statistics: list[th.Tensor] = []
        #: number of minibatches that have changed the weights
        self.n_steps = 0
        #: number of minibatches of the last epoch
        self.n_in_last_epoch = 0
        #: outcome of the last minibatch
        self.outcome = DONE
        #: observations, other columns and coefficients of the last minibatch
        self.last_minibatch: list[th.Tensor] = []
        self._step, self._program, self._batch_size = step, program, batch_size
        self._fixed, self._coefficients = list(fixed), list(coefficients)
        self._optimizer_coefficients, self._may_stop = optimizer_coefficients, may_stop
        self._is_to_be_compared = is_compared

    def epoch(self, minibatches: Iterable[tuple[th.Tensor, ...]]) -> None:
        """
        :param minibatches: all minibatches of one epoch; those after one that is refused are left out
        :raises Unsupported: if the program does not do what the step does; the state is as it was before
        """
        always = [*self.state.tensors(), *self._fixed]
        self.n_in_last_epoch = 0
        for minibatch in minibatches:
            self.last_minibatch = [*minibatch, *self._coefficients, self._optimizer_coefficients[self.n_steps]]
            statistics = self._do(len(minibatch[0]), [*always, *self.last_minibatch])
            self.statistics.append(statistics)
            self.n_in_last_epoch += 1
            if self._may_stop:
                self.outcome = int(statistics[-1])
                if self.outcome != DONE:
                    return
            self.n_steps += 1

    def _do(self, n_samples: int, inputs: list[th.Tensor]) -> th.Tensor:
        if n_samples != self._batch_size:
            return self._step(*inputs)[0]
        if self._is_to_be_compared:
            self._is_to_be_compared = False
            return self._do_in_both_ways(inputs)
        return self._program(inputs)

    def _do_in_both_ways(self, inputs: list[th.Tensor]) -> th.Tensor:
        before, eager = self.state.clone(), self.state.clone()
        expected = self._step(*eager.tensors(), *inputs[len(eager.tensors()) :])[0]
        found = self._program(inputs)
        compared = [(expected, found), *zip(eager.buffers, self.state.buffers, strict=True)]
        eager_step, found_step = (state.parameters - before.parameters for state in (eager, self.state))
        if (
            any(_difference(*pair) > MAX_DIFFERENCE for pair in compared)
            or not _is_close(eager.gradient, self.state.gradient, MAX_GRADIENT_DIFFERENCE)
            or not _is_close(eager_step, found_step, MAX_STEP_DIFFERENCE)
        ):
            for tensor, value in zip(self.state.tensors(), before.tensors(), strict=True):
                tensor.copy_(value)
            raise Unsupported("the policy computes something else than it did when its update was compiled")
        return found


def agree(
    before: Sequence[th.Tensor],
    expected: Sequence[th.Tensor],
    found: Sequence[th.Tensor],
    expected_statistics: th.Tensor,
    found_statistics: th.Tensor,
) -> bool:
    """
    :param before: what a step has changed, as it was before
    :param expected: as the eager step has left it
    :param found: as the compiled step has left it
    :param expected_statistics: what the eager step has returned
    :param found_statistics: what the compiled step has returned
    :return: whether the two have done the same, but for rounding
    """
    if _difference(expected_statistics, found_statistics) > MAX_LOSS_DIFFERENCE:
        return False
    return all(
        _is_close(one - start, other - start, MAX_STEP_DIFFERENCE)
        for start, one, other in zip(before, expected, found, strict=True)
    )


def _difference(expected: th.Tensor, found: th.Tensor) -> float:
    """The largest difference, relative to numbers above 1; that of two NaN or equal infinities is 0."""
    if expected.numel() == 0:
        return 0.0
    expected, found = expected.double(), found.double()
    return (_distance(expected, found) / expected.abs().nan_to_num(0.0).clamp(min=1.0)).max().item()


def _is_close(expected: th.Tensor, found: th.Tensor, share: float) -> bool:
    """Whether two vectors are no further apart than a share of the length of the first."""
    length = th.linalg.vector_norm(expected.nan_to_num(0.0, 0.0, 0.0))
    return bool(th.linalg.vector_norm(_distance(expected, found)) <= share * length + MAX_DIFFERENCE**2)


def _distance(expected: th.Tensor, found: th.Tensor) -> th.Tensor:
    """Where there is NaN, or the same infinity, in both of them, they agree."""
    same = (expected == found) | (expected.isnan() & found.isnan())
    return th.where(same, 0.0, (expected - found).abs().nan_to_num(th.inf))
