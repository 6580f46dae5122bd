"""PPO with an adaptive penalty on the KL divergence in the place of clipping, as published in two places."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.ppo import PPO

from sb3_walle.sb3_private import add_updates, n_updates, update_learning_rate
from sb3_walle.updates.policy_copy import copy_without_optimizer
from sb3_walle.updates.ppo_objective import (
    Evaluation,
    PPOVariant,
    RolloutRows,
    negative_entropy,
    normalized_advantages,
    value_error,
)
from sb3_walle.updates.ppo_update import clip_ranges

OBJECTIVES = ("clip", "kl_penalty")
# The penalty grows and shrinks by this factor.
ADAPTATION = 1.5
# In the loss, the divergence counts by its square in addition from so many times its target on.
HINGE_FACTOR = 2.0

Samples = RolloutBufferSamples | DictRolloutBufferSamples


@dataclass(frozen=True)
class KLPenaltyPreset:
    """
    How a publication penalises the divergence.

    :param kl_target: divergence that an update should make
    :param hinge_coef: weight of the square by which it exceeds twice that
    :param wanted: within which multiples of its target the penalty stays as it is
    :param max_kl_factor: from which multiple on there is no further epoch
    :param max_kl_coef: bound of the penalty; the inverse is the other
    :param extreme_kl_coef: from here on the penalty is taken to be unable to do more, and the learning rate changes,
        too
    :param max_learning_rate_factor: bound of what learning rates are multiplied with; the inverse is the other
    """

    kl_target: float
    hinge_coef: float
    wanted: tuple[float, float]
    max_kl_factor: float = math.inf
    max_kl_coef: float = math.inf
    extreme_kl_coef: float = math.inf
    max_learning_rate_factor: float = 1.0


REPORT, BATCH_PPO = "report", "batchppo"
PRESETS = {
    # The WALL-E report's.
    REPORT: KLPenaltyPreset(0.003, 50.0, (0.5, 2.0), 4.0, 35.0, 30.0, 10.0),
    # Hafner, Davidson & Vanhoucke (2017, "TensorFlow Agents", https://arxiv.org/abs/1709.02878) and their program.
    BATCH_PPO: KLPenaltyPreset(0.01, 1000.0, (0.7, 1.3)),
}


@dataclass(frozen=True)
class KLPenalty:
    """
    How strong the penalty is, which changes from update to update.

    :param coef: weight of the divergence in the loss, beta in the report
    :param learning_rate_factor: what learning rates are multiplied with
    """

    coef: float = 1.0
    learning_rate_factor: float = 1.0

    def adapted(self, kl: float, kl_target: float, preset: KLPenaltyPreset = PRESETS[REPORT]) -> "KLPenalty":
        """
        The penalty of the next update (Schulman et al., 2017, section 4, with the numbers of a preset).

        :param kl: divergence after the update
        :param kl_target: divergence that there should have been
        """
        coef, factor = self.coef, self.learning_rate_factor
        least, most = preset.wanted
        if kl > most * kl_target:
            coef = min(preset.max_kl_coef, coef * ADAPTATION)
            if coef > preset.extreme_kl_coef:
                factor = max(1 / preset.max_learning_rate_factor, factor / ADAPTATION)
        elif kl < least * kl_target:
            coef = max(1 / preset.max_kl_coef, coef / ADAPTATION)
            if coef < 1 / preset.extreme_kl_coef:
                factor = min(preset.max_learning_rate_factor, factor * ADAPTATION)
        return KLPenalty(coef, factor)


def check_objective(objective: str, preset: str | None) -> None:
    """:raises ValueError: if there is no such objective or preset, or the objective has none"""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset must be one of {tuple(PRESETS)}, got {preset!r}")
    if preset is not None and objective != "kl_penalty":
        raise ValueError(f"preset={preset!r} is for objective='kl_penalty'. Add that, or leave preset out.")


def train_with_kl_penalty(algorithm: PPO, penalty: KLPenalty, preset: str = REPORT) -> KLPenalty:
    """
    Update the policy from the rollout buffer, as SB3's ``PPO.train()`` does but for the objective, and record what it
    records, and ``train/kl``, ``train/kl_coef`` and ``train/learning_rate_factor``.

    The loss of a minibatch is ``-E[ratio * A] + coef * KL + 50 * max(0, KL - 2 * kl_target) ** 2``, and SB3's losses of
    values and entropy. KL is the exact divergence of the policy from what it was before the update. If that is more
    than four times ``kl_target`` after an epoch, there is no further one. With the preset ``"batchppo"``, 50 is 1000,
    and no epoch is left out.

    :param algorithm: the algorithm, whose ``target_kl`` is the divergence that an update should make, by default 0.003,
        and 0.01 with the other preset
    :param penalty: how strong the penalty is
    :param preset: whose numbers these are, one of :data:`PRESETS`
    :return: its strength in the next update
    """
    numbers = PRESETS[preset]
    policy, optimizer = algorithm.policy, algorithm.policy.optimizer
    kl_target = numbers.kl_target if algorithm.target_kl is None else algorithm.target_kl
    hinge = Hinge(numbers.hinge_coef, HINGE_FACTOR * kl_target)
    old_policy = copy_without_optimizer(policy)
    # As it is when it acts.
    old_policy.set_training_mode(False)
    update_learning_rate(algorithm, optimizer)
    for group in optimizer.param_groups:
        group["lr"] *= penalty.learning_rate_factor
    # What is logged, a number for each minibatch.
    losses: dict[str, list[float]] = defaultdict(list)
    kl = 0.0
    for epoch in range(algorithm.n_epochs):
        policy.set_training_mode(True)
        for samples in algorithm.rollout_buffer.get(algorithm.batch_size):
            loss = _loss(algorithm, old_policy, samples, penalty.coef, hinge, losses)
            optimizer.zero_grad()
            loss.backward()
            th.nn.utils.clip_grad_norm_(policy.parameters(), algorithm.max_grad_norm)
            optimizer.step()
        add_updates(algorithm, 1)
        kl = _mean_divergence(algorithm, old_policy)
        if kl > numbers.max_kl_factor * kl_target:
            if algorithm.verbose >= 1:
                print(f"Early stopping at step {epoch} due to reaching max kl: {kl:.4f}")
            break
    _record(algorithm, losses, kl, penalty)
    return penalty.adapted(kl, kl_target, numbers)


class Hinge(NamedTuple):
    """Nothing up to some divergence, and from there on the square of what exceeds it, with a weight."""

    coef: float
    start: float

    def __call__(self, kl: th.Tensor) -> th.Tensor:
        return self.coef * th.clamp(kl - self.start, min=0.0) ** 2


def _loss(
    algorithm: PPO,
    old_policy: ActorCriticPolicy,
    samples: Samples,
    coef: float,
    hinge: Hinge,
    losses: dict[str, list[float]],
) -> th.Tensor:
    policy = algorithm.policy
    variant = PPOVariant(algorithm.normalize_advantage, algorithm.clip_range_vf is not None)
    actions = samples.actions
    if isinstance(algorithm.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    new = Evaluation(*policy.evaluate_actions(samples.observations, actions))
    # Observations, actions, and the rest as SB3 has them, in the same order.
    old = RolloutRows(*samples)
    ratio = th.exp(new.log_prob - old.log_probs)
    kl = divergence(policy, old_policy, samples).mean()
    penalty = coef * kl + hinge(kl)
    policy_loss = penalty - (normalized_advantages(variant, old.advantages, old.advantages) * ratio).mean()
    value_loss = value_error(variant, new, old, th.tensor(clip_ranges(algorithm)[1] or 0.0))
    entropy_loss = negative_entropy(new)
    loss = policy_loss + algorithm.ent_coef * entropy_loss + algorithm.vf_coef * value_loss
    losses["entropy_loss"].append(entropy_loss.item())
    losses["policy_gradient_loss"].append(policy_loss.item())
    losses["value_loss"].append(value_loss.item())
    losses["loss"].append(loss.item())
    return loss


def divergence(policy: ActorCriticPolicy, old_policy: ActorCriticPolicy, samples: Samples) -> th.Tensor:
    """KL(old || new) of the distributions of actions for each of B samples, ``[B]``."""
    with th.no_grad():
        old = old_policy.get_distribution(samples.observations)
    found = kl_divergence(old, policy.get_distribution(samples.observations))
    # Dimensions of actions that are independent have a divergence each, and that of all is the sum.
    return found.reshape(len(found), -1).sum(dim=1)


def _mean_divergence(algorithm: PPO, old_policy: ActorCriticPolicy) -> float:
    # Looking must not change anything, as the statistics of a batch normalization.
    algorithm.policy.set_training_mode(False)
    total, n_samples = 0.0, 0
    with th.no_grad():
        for samples in algorithm.rollout_buffer.get(algorithm.batch_size):
            found = divergence(algorithm.policy, old_policy, samples)
            total += found.sum().item()
            n_samples += len(found)
    return total / n_samples


def _record(algorithm: PPO, losses: dict[str, list[float]], kl: float, penalty: KLPenalty) -> None:
    logger, buffer = algorithm.logger, algorithm.rollout_buffer
    for name in ("entropy_loss", "policy_gradient_loss", "value_loss"):
        logger.record(f"train/{name}", np.mean(losses[name]))
    logger.record("train/loss", losses["loss"][-1])
    logger.record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
    if hasattr(algorithm.policy, "log_std"):
        logger.record("train/std", th.exp(algorithm.policy.log_std).mean().item())
    logger.record("train/n_updates", n_updates(algorithm), exclude="tensorboard")
    logger.record("train/kl", kl)
    logger.record("train/kl_coef", penalty.coef)
    logger.record("train/learning_rate_factor", penalty.learning_rate_factor)
