"""PPO's update: one stage, as SB3's ``PPO.train()`` makes it."""

from collections.abc import Hashable, Iterator
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.ppo import PPO

from sb3_walle.sb3_private import add_updates, n_updates, progress_remaining
from sb3_walle.updates.algorithm_update import Inputs, Progress
from sb3_walle.updates.finite import stop_at_minibatch
from sb3_walle.updates.flat import clipped
from sb3_walle.updates.parameter_groups import GroupState, ParameterGroup
from sb3_walle.updates.ppo_objective import (
    COEFFICIENTS,
    STATISTICS,
    Evaluation,
    PackedRows,
    PPOVariant,
    ppo_objective,
)
from sb3_walle.updates.rollout_update import RolloutUpdate
from sb3_walle.updates.step import Gradient, Losses, Minibatch, Parameters, Stage, State, UpdateStep

#: whether a minibatch has changed the weights, and if not, why
DONE, KL_TOO_LARGE, NOT_FINITE = 0, 1, 2
# Rounding moves a ratio by less.
MIN_CLIP_RANGE_TO_COMPARE = 1e-4

_POLICY = Stage("policy", ("policy",), (*STATISTICS, "gradient_norm", "outcome"))


class PPOStep(UpdateStep):
    """Evaluates the policy on a minibatch, differentiates the loss, clips the gradient and steps the optimizer."""

    stages: ClassVar[tuple[Stage, ...]] = (_POLICY,)
    rows: ClassVar[Any] = PackedRows
    # Advantages are normalised with their mean and deviation.
    seen_whole: ClassVar[tuple[str, ...]] = ("numbers",)
    #: in addition to the objective's: the largest divergence allowed, whether a loss or gradient that is not finite is
    #: an error, and where gradients are clipped
    coefficients: ClassVar[tuple[str, ...]] = (*COEFFICIENTS, "kl_limit", "require_finite", "max_grad_norm")

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows = minibatch.rows.unpacked()
        is_discrete = isinstance(self._policy.action_space, spaces.Discrete)
        actions = rows.actions.long().flatten() if is_discrete else rows.actions
        evaluation = Evaluation(*self._policy.evaluate_actions(rows.observations, actions))
        loss, statistics = ppo_objective(self.spec.variant, evaluation, minibatch)
        return Losses({"policy": loss}, statistics)

    def apply(
        self, stage: Stage, state: State, gradient: Gradient, minibatch: Minibatch
    ) -> tuple[State, dict[str, th.Tensor]]:
        coefficients, statistics = minibatch.coefficients, gradient.statistics
        with th.no_grad():
            norm = gradient.norm("policy")
            vector = clipped(gradient.vectors["policy"], norm, coefficients["max_grad_norm"])
            new, _ = super().apply(stage, state, gradient._replace(vectors={"policy": vector}), minibatch)
            is_finite = th.isfinite(statistics["loss"]) & th.isfinite(norm)
            is_spoilt = (coefficients["require_finite"] > 0) & ~is_finite
            # SB3 looks at the divergence first, before it differentiates the loss.
            is_too_far = statistics["approx_kl"] > coefficients["kl_limit"]
            outcome = th.where(is_too_far, KL_TOO_LARGE, th.where(is_spoilt, NOT_FINITE, DONE)).to(norm.dtype)

            before, after = state.groups["policy"].tensors(), new.groups["policy"].tensors()
            chosen = [th.where(outcome == DONE, new, old) for old, new in zip(before, after, strict=True)]
            # The forward pass that finds the divergence too large leaves its traces in buffers, as in SB3.
            # Which buffers have changed cannot be known: batch normalization does not count versions.
            buffers = tuple(
                th.where(outcome != NOT_FINITE, new, old)
                for old, new in zip(state.buffers, gradient.buffers, strict=True)
            )
        groups = {"policy": GroupState.of(chosen)}
        return State(groups, buffers, state.fixed), {"gradient_norm": norm, "outcome": outcome}


class PPOUpdate(RolloutUpdate):
    """Does what SB3's ``PPO.train()`` does."""

    sb3_train: ClassVar[Any] = PPO.train
    step_class: ClassVar[type[UpdateStep]] = PPOStep

    def variant(self) -> Hashable:
        return PPOVariant(self.algorithm.normalize_advantage, self.algorithm.clip_range_vf is not None)

    def make_groups(self) -> list[ParameterGroup]:
        names = self.names_with_gradient(_loss)
        return [self.trained_group("policy", names)]

    def n_minibatches(self) -> int:
        return self.algorithm.n_epochs * self.minibatches_per_epoch()

    def n_minibatches_made(self) -> int:
        # Epochs, of which target_kl may have left some out.
        return n_updates(self.algorithm) * self.minibatches_per_epoch()

    def is_comparable(self) -> bool:
        """
        Whether a minibatch has the same gradient in both ways. The ratio to the policy before the update is 1 but for
        rounding, which decides what is clipped at the end of a schedule that leads to 0.
        """
        return all(limit is None or limit > MIN_CLIP_RANGE_TO_COMPARE for limit in clip_ranges(self.algorithm))

    def minibatches(self, progress: Progress) -> Iterator[Inputs]:
        algorithm = self.algorithm
        algorithm.policy.set_training_mode(True)
        minibatches = self.rollout()
        coefficients = [self._coefficients()]
        may_stop = self._requires_finite() or algorithm.target_kl is not None
        for epoch in range(algorithm.n_epochs):
            n_before = len(progress.statistics)
            for rows in minibatches.epoch():
                yield Inputs("update", list(rows), coefficients)
                if may_stop and progress.statistics[-1][-1] != DONE:
                    progress.is_refused = True
                    break
            progress.n_in_last_epoch = len(progress.statistics) - n_before
            if progress.is_refused and progress.statistics[-1][-1] == NOT_FINITE:
                return
            add_updates(algorithm, 1)
            if progress.is_refused:
                self._report_early_stop(epoch, progress)
                return

    def finish(self, number: int, progress: Progress) -> None:
        if progress.n_steps:
            progress.groups[0].leave_gradients()
        if progress.is_refused and progress.statistics[-1][-1] == NOT_FINITE:
            self._raise_non_finite(number, progress)
        self._record(progress)

    def _requires_finite(self) -> bool:
        return getattr(self.algorithm, "check_nan", False)

    def _coefficients(self) -> th.Tensor:
        """What stays the same for a whole update."""
        algorithm = self.algorithm
        clip_range, clip_range_vf = clip_ranges(algorithm)
        values = {
            "clip_range": clip_range,
            "clip_low": 1 - clip_range,
            "clip_high": 1 + clip_range,
            "clip_range_vf": 0.0 if clip_range_vf is None else clip_range_vf,
            "ent_coef": algorithm.ent_coef,
            "vf_coef": algorithm.vf_coef,
            "kl_limit": np.inf if algorithm.target_kl is None else 1.5 * algorithm.target_kl,
            "require_finite": float(self._requires_finite()),
            "max_grad_norm": algorithm.max_grad_norm,
        }
        return self.tensor([values[name] for name in PPOStep.coefficients])

    def _report_early_stop(self, epoch: int, progress: Progress) -> None:
        if self.algorithm.verbose >= 1:
            approx_kl = progress.statistics[-1][STATISTICS.index("approx_kl")].item()
            print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl:.2f}")

    def _loss_of_last_minibatch(self, progress: Progress) -> th.Tensor:
        """Eagerly, with gradients to the parameters that the policy has at present."""
        step, inputs = progress.step, progress.inputs
        assert step is not None
        _, minibatch = step.unpacked(inputs)
        return _loss(step, minibatch)

    def _raise_non_finite(self, number: int, progress: Progress) -> NoReturn:
        """Make the minibatch again, eagerly and under observation, to find out what is not finite in it."""
        policy = self.algorithm.policy
        stop_at_minibatch(policy, number, progress.n_steps + 1, lambda: self._loss_of_last_minibatch(progress))

    def _record(self, progress: Progress) -> None:
        algorithm = self.algorithm
        # SB3 averages Python's numbers, in double precision, but for the divergence. Loggers print the two differently.
        table = th.stack(progress.statistics).cpu().numpy().astype(np.float64)
        if not np.isfinite(table).all():
            # Where SB3 would have found out at the next minibatch, by the checks of the distributions.
            with th.no_grad():
                self._loss_of_last_minibatch(progress)
        found = {name: table[:, column] for column, name in enumerate(STATISTICS)}
        approx_kl = found["approx_kl"].astype(np.float32)
        buffer, logger = algorithm.rollout_buffer, algorithm.logger
        logger.record("train/entropy_loss", np.mean(found["entropy_loss"]))
        logger.record("train/policy_gradient_loss", np.mean(found["policy_gradient_loss"]))
        logger.record("train/value_loss", np.mean(found["value_loss"]))
        logger.record("train/approx_kl", np.mean(approx_kl[-progress.n_in_last_epoch :]))
        logger.record("train/clip_fraction", np.mean(found["clip_fraction"]))
        logger.record("train/loss", found["loss"][-1].item())
        variance = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        logger.record("train/explained_variance", variance)
        if hasattr(algorithm.policy, "log_std"):
            logger.record("train/std", th.exp(algorithm.policy.log_std).mean().item())
        logger.record("train/n_updates", n_updates(algorithm), exclude="tensorboard")
        clip_range, clip_range_vf = clip_ranges(algorithm)
        logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            logger.record("train/clip_range_vf", clip_range_vf)


def _loss(step: UpdateStep, minibatch: Minibatch) -> th.Tensor:
    return step.losses("policy", {}, minibatch).of_groups["policy"]


def clip_ranges(algorithm: PPO) -> tuple[float, float | None]:
    """How far the ratio may be from 1, and values from the old ones, at present."""
    remaining = progress_remaining(algorithm)
    # SB3 declares what its constructor takes. _setup_model() has made schedules of it.
    clip_range = algorithm.clip_range(remaining)  # type: ignore[operator]
    if algorithm.clip_range_vf is None:
        return clip_range, None
    return clip_range, algorithm.clip_range_vf(remaining)  # type: ignore[operator]
