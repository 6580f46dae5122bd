"""One minibatch of PPO as a function of tensors: from weights to new weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_walle.learners.adam import AdamSettings
from sb3_walle.learners.clipping import clipped
from sb3_walle.learners.flat import FlatLayout
from sb3_walle.learners.ppo_objective import (
    COLUMNS,
    STATISTICS,
    Columns,
    Evaluation,
    Objective,
    PPOVariant,
    ppo_objective,
)
from sb3_walle.learners.substitution import substituted
from sb3_walle.learners.unsupported import Unsupported, in_short

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]

#: whether a minibatch has changed the weights, and if not, why
DONE, KL_TOO_LARGE, NOT_FINITE = 0, 1, 2
#: the largest divergence allowed, whether a loss or gradient that is not finite is an error, and where gradients are
#: clipped
LIMITS = ("kl_limit", "require_finite", "max_grad_norm")


class StepState(NamedTuple):
    """
    What a step changes in place.

    :param parameters: the trained parameters as a vector, ``[n]``
    :param moments: the optimizer's moments, ``[n]`` each
    :param gradient: the gradient of the last step, clipped, ``[n]``
    :param buffers: the policy's buffers, such as the running statistics of batch normalization
    """

    parameters: th.Tensor
    moments: tuple[th.Tensor, ...]
    gradient: th.Tensor
    buffers: tuple[th.Tensor, ...]

    def tensors(self) -> list[th.Tensor]:
        """:return: all of them, in this order"""
        return [self.parameters, *self.moments, self.gradient, *self.buffers]

    def clone(self) -> "StepState":
        """:return: a copy"""
        moments, buffers = (tuple(tensor.clone() for tensor in some) for some in (self.moments, self.buffers))
        return StepState(self.parameters.clone(), moments, self.gradient.clone(), buffers)


@dataclass(frozen=True)
class PolicyTensors:
    """
    The tensors of a policy, by the part that they play in an update.

    :param trained: names of the parameters that get a gradient
    :param fixed: names of all other parameters
    :param buffers: names of the buffers
    """

    trained: tuple[str, ...]
    fixed: tuple[str, ...]
    buffers: tuple[str, ...]


class PPOStep:
    """
    Evaluates the policy on a minibatch, differentiates the loss, clips the gradient and steps the optimizer.

    Calling it changes the state in place and returns the statistics. It takes and gives nothing but tensors, in a list,
    and looks at the value of none, so that it can be traced.

    :param policy: the policy
    :param tensors: its tensors
    :param layout: places of the trained parameters in their vector
    :param observation_keys: keys of observations that are dictionaries, otherwise ``None``
    :param variant: which objective
    :param adam: how the optimizer is set
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        tensors: PolicyTensors,
        layout: FlatLayout,
        observation_keys: tuple[str, ...] | None,
        variant: PPOVariant,
        adam: AdamSettings,
    ) -> None:
        self._policy = policy
        self._is_discrete = isinstance(policy.action_space, spaces.Discrete)
        self.tensors, self.layout, self.adam = tensors, layout, adam
        self._observation_keys, self._variant = observation_keys, variant

    @property
    def n_observations(self) -> int:
        """Number of tensors that make up the observations of a minibatch."""
        return 1 if self._observation_keys is None else len(self._observation_keys)

    def __call__(self, *inputs: th.Tensor) -> tuple[th.Tensor]:
        """
        :param inputs: the state's tensors, the fixed parameters, the observations, the other columns of the minibatch,
            and the coefficients of objective, limits and optimizer
        :return: the statistics, the norm of the gradient before it was clipped, and the outcome: whether the minibatch
            has changed the weights
        """
        state, rest = self._split_state(inputs)
        fixed, minibatch = rest[: len(self.tensors.fixed)], rest[len(self.tensors.fixed) :]
        parameters = [view.detach().requires_grad_() for view in self.layout.views(state.parameters)]
        buffers = [buffer.clone() for buffer in state.buffers]
        with th.enable_grad():
            objective, new_buffers = self._objective([*parameters, *fixed], buffers, minibatch)
            gradients = th.autograd.grad(objective.loss, parameters)
        with th.no_grad():
            return self._step(state, objective, FlatLayout.flatten(gradients), new_buffers, minibatch)

    def objective(self, minibatch: Sequence[th.Tensor]) -> Objective:
        """
        :param minibatch: observations, other columns and coefficients
        :return: the objective, with gradients to the parameters that the policy has at present
        """
        columns = self._columns(minibatch)
        actions = columns.actions.long().flatten() if self._is_discrete else columns.actions
        evaluation = Evaluation(*self._policy.evaluate_actions(self._observations(minibatch), actions))
        return ppo_objective(self._variant, evaluation, columns, minibatch[-3])

    def _objective(
        self, parameters: list[th.Tensor], buffers: list[th.Tensor], minibatch: Sequence[th.Tensor]
    ) -> tuple[Objective, list[th.Tensor]]:
        names = [*self.tensors.trained, *self.tensors.fixed, *self.tensors.buffers]
        with substituted(self._policy, dict(zip(names, [*parameters, *buffers], strict=True))):
            objective = self.objective(minibatch)
            # They may have been changed, or be others by now.
            found = dict(self._policy.named_buffers())
        return objective, [found[name] for name in self.tensors.buffers]

    def _step(
        self,
        state: StepState,
        objective: Objective,
        gradient: th.Tensor,
        new_buffers: list[th.Tensor],
        minibatch: Sequence[th.Tensor],
    ) -> tuple[th.Tensor]:
        kl_limit, require_finite, max_grad_norm = minibatch[-2].unbind()
        gradient, norm = clipped(gradient, max_grad_norm)
        parameters, moments = self.adam.step(state.parameters, gradient, state.moments, minibatch[-1])

        approx_kl = objective.statistics[STATISTICS.index("approx_kl")]
        is_finite = th.isfinite(objective.loss.detach()) & th.isfinite(norm)
        is_spoilt = (require_finite > 0) & ~is_finite
        # SB3 looks at the divergence first, before it differentiates the loss.
        outcome = th.where(approx_kl > kl_limit, KL_TOO_LARGE, th.where(is_spoilt, NOT_FINITE, DONE)).to(norm.dtype)

        olds, news = (state.parameters, *state.moments, state.gradient), (parameters, *moments, gradient)
        for old, new in zip(olds, news, strict=True):
            old.copy_(th.where(outcome == DONE, new, old))
        # The forward pass that finds the divergence too large leaves its traces in buffers, as in SB3.
        # Which buffers have changed cannot be known: batch normalization does not count versions.
        for old, new in zip(state.buffers, new_buffers, strict=True):
            old.copy_(th.where(outcome != NOT_FINITE, new, old))
        return (th.stack([*objective.statistics, norm, outcome]),)

    def _split_state(self, inputs: Sequence[th.Tensor]) -> tuple[StepState, Sequence[th.Tensor]]:
        n_moments, n_buffers = len(self.adam.moments), len(self.tensors.buffers)
        moments, (gradient, *after) = inputs[1 : 1 + n_moments], inputs[1 + n_moments :]
        return StepState(inputs[0], tuple(moments), gradient, tuple(after[:n_buffers])), after[n_buffers:]

    def _observations(self, minibatch: Sequence[th.Tensor]) -> Observations:
        if self._observation_keys is None:
            return minibatch[0]
        return dict(zip(self._observation_keys, minibatch, strict=False))

    def _columns(self, minibatch: Sequence[th.Tensor]) -> Columns:
        return Columns(*minibatch[self.n_observations : self.n_observations + len(COLUMNS)])


def policy_tensors(
    policy: ActorCriticPolicy, copied: ActorCriticPolicy, copied_loss: Callable[[], th.Tensor]
) -> PolicyTensors:
    """
    :param policy: a policy
    :param copied: a copy of it, whose buffers may change
    :param copied_loss: computes a loss with the copy
    :return: which of its tensors play which part when this loss is minimised
    :raises Unsupported: if the loss cannot be computed, or the optimizer trains other parameters than those that get a
        gradient
    """
    learnable = {name: parameter for name, parameter in copied.named_parameters() if parameter.requires_grad}
    try:
        gradients = th.autograd.grad(copied_loss(), list(learnable.values()), allow_unused=True)
    except Exception as error:
        # A policy may do anything, also refuse a minibatch of zeros.
        raise Unsupported(f"the policy does not evaluate a minibatch of zeros: {in_short(error)}") from error
    trained = [name for name, gradient in zip(learnable, gradients, strict=True) if gradient is not None]
    parameters = dict(policy.named_parameters())
    optimized = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    if not {id(parameters[name]) for name in trained} <= optimized:
        raise Unsupported("the optimizer does not train all parameters that get a gradient")
    kinds = {(parameters[name].dtype, parameters[name].device) for name in trained}
    if len(kinds) != 1 or not next(iter(kinds))[0].is_floating_point:
        raise Unsupported(f"the parameters are of several or unusual kinds: {_in_words(kinds)}")
    fixed = [name for name in parameters if name not in set(trained)]
    return PolicyTensors(tuple(trained), tuple(fixed), tuple(name for name, _ in policy.named_buffers()))


def _in_words(kinds: set[tuple[Any, ...]]) -> str:
    return ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
