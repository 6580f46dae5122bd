"""PPO's objective on one minibatch, as SB3 computes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch as th
from torch.nn import functional as F

from sb3_walle.updates.step import Minibatch

#: what SB3 takes from its arguments and schedules in each update, with some that are worked out from these in double
#: precision
COEFFICIENTS = ("clip_range", "clip_low", "clip_high", "clip_range_vf", "ent_coef", "vf_coef")
#: mean over the samples of a minibatch
Mean: TypeAlias = Callable[[th.Tensor], th.Tensor]

#: what is logged
STATISTICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")


@dataclass(frozen=True)
class PPOVariant:
    """What of PPO's objective is not a number."""

    normalize_advantage: bool
    clip_values: bool


class Evaluation(NamedTuple):
    """
    What the policy says of a minibatch of B samples.

    :param values: of any shape with B elements
    :param log_prob: log-probabilities of the actions, ``[B]``
    :param entropy: ``[B]``; ``None`` if there is no closed form
    """

    values: th.Tensor
    log_prob: th.Tensor
    entropy: th.Tensor | None


class RolloutRows(NamedTuple):
    """
    A minibatch of B samples of a rollout buffer: observations ``[B, ...]`` (or a dictionary of such tensors), actions
    ``[B, action_dim]``, and ``[B]`` each of values and log-probabilities before the update, advantages, and returns.
    """

    observations: Any
    actions: th.Tensor
    values: th.Tensor
    log_probs: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor


#: those of which each sample has one
SCALARS = RolloutRows._fields[2:]


class PackedRows(NamedTuple):
    """
    The same as minibatches are drawn. To make a tensor for a minibatch takes three microseconds, so there is one for
    all numbers: actions, and then :data:`SCALARS`, ``[B, action_dim + 4]``.
    """

    observations: Any
    numbers: th.Tensor

    def unpacked(self) -> RolloutRows:
        n_actions = self.numbers.shape[1] - len(SCALARS)
        return RolloutRows(self.observations, self.numbers[:, :n_actions], *self.numbers[:, n_actions:].unbind(1))


def ppo_objective(variant: PPOVariant, new: Evaluation, minibatch: Minibatch) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The clipped surrogate objective (Schulman et al., 2017, eq. 7 and 9), in the order of operations of SB3's
    ``PPO.train()``.

    :param minibatch: with :class:`PackedRows`, and the coefficients that :data:`COEFFICIENTS` names
    :return: what to minimise, and what :data:`STATISTICS` names, without a gradient
    """
    old: RolloutRows = minibatch.rows.unpacked()
    whole = PackedRows(None, minibatch.whole("numbers")).unpacked()
    clip_range, clip_low, clip_high, clip_range_vf, ent_coef, vf_coef = (
        minibatch.coefficients[name] for name in COEFFICIENTS
    )
    advantages = normalized_advantages(variant, old.advantages, whole.advantages)
    log_ratio = new.log_prob - old.log_probs
    ratio = th.exp(log_ratio)
    surrogate = th.min(advantages * ratio, advantages * th.clamp(ratio, clip_low, clip_high))
    policy_loss = -minibatch.mean(surrogate)

    value_loss = value_error(variant, new, old, clip_range_vf, minibatch.mean)
    entropy_loss = negative_entropy(new, minibatch.mean)
    loss = policy_loss + ent_coef * entropy_loss + vf_coef * value_loss
    with th.no_grad():
        # An estimate of the KL divergence: http://joschu.net/blog/kl-approx.html
        approx_kl = minibatch.mean((th.exp(log_ratio) - 1) - log_ratio)
        clip_fraction = minibatch.mean((th.abs(ratio - 1) > clip_range).float())
    found = (policy_loss, value_loss, entropy_loss, loss, approx_kl, clip_fraction)
    return loss, {name: value.detach() for name, value in zip(STATISTICS, found, strict=True)}


def normalized_advantages(variant: PPOVariant, advantages: th.Tensor, whole: th.Tensor) -> th.Tensor:
    """Advantages, normalised with mean and standard deviation of those of the whole minibatch."""
    # The standard deviation of a single advantage is NaN.
    if variant.normalize_advantage and len(whole) > 1:
        return (advantages - whole.mean()) / (whole.std() + 1e-8)
    return advantages


def value_error(
    variant: PPOVariant, new: Evaluation, old: RolloutRows, clip_range_vf: th.Tensor, mean: Mean = th.mean
) -> th.Tensor:
    """Mean squared error of the values, which may be clipped around the old ones."""
    values = new.values.flatten()
    if variant.clip_values:
        values = old.values + th.clamp(values - old.values, -clip_range_vf, clip_range_vf)
    return mean(F.mse_loss(old.returns, values, reduction="none"))


def negative_entropy(new: Evaluation, mean: Mean = th.mean) -> th.Tensor:
    """Mean entropy with its sign changed; an estimate if there is no closed form."""
    return -mean(-new.log_prob if new.entropy is None else new.entropy)
