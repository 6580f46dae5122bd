"""A whole update of PPO, minibatch after minibatch, with a step that somebody has compiled."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch as th
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.ppo import PPO

from sb3_walle.learners.adam import AdamSettings, AdamState
from sb3_walle.learners.finite import stop_at_minibatch
from sb3_walle.learners.flat import FlatLayout
from sb3_walle.learners.minibatch_loop import MinibatchLoop, Program
from sb3_walle.learners.minibatches import RolloutMinibatches
from sb3_walle.learners.ppo_objective import COEFFICIENTS, STATISTICS
from sb3_walle.learners.ppo_step import KL_TOO_LARGE, LIMITS, NOT_FINITE, PPOStep, StepState
from sb3_walle.learners.unsupported import Unsupported

# Rounding moves a ratio by less.
MIN_CLIP_RANGE_TO_COMPARE = 1e-4


class PPOUpdate:
    """
    Does what SB3's ``PPO.train()`` does.

    :param algorithm: the algorithm
    :param step: one minibatch, eagerly
    :param program: one minibatch, compiled
    :param batch_size: samples of the minibatches that the program takes; a smaller last one is done eagerly
    :param check_nan: whether a loss or gradient that is not finite is an error
    :param is_compared: whether the first minibatch is done eagerly, too, to compare the results
    """

    def __init__(
        self,
        algorithm: PPO,
        step: PPOStep,
        program: Program,
        batch_size: int,
        check_nan: bool,
        is_compared: bool = True,
    ) -> None:
        self._algorithm, self._step, self._program = algorithm, step, program
        self._batch_size, self._check_nan, self._is_compared = batch_size, check_nan, is_compared
        parameters = dict(algorithm.policy.named_parameters())
        self._trained = [parameters[name] for name in step.tensors.trained]
        self._fixed = [parameters[name].detach() for name in step.tensors.fixed]
        self._optimizer_state = AdamState(algorithm.policy.optimizer, self._trained, step.layout)
        #: number of minibatches of the last update
        self.n_minibatches = 0

    def train(self, number: int) -> None:
        """
        Update the policy from the rollout buffer, and record what SB3 records.

        :param number: number of the update, from 1
        :raises Unsupported: if the program turns out not to do what the policy does; nothing has changed then
        :raises NonFiniteError: if a loss or gradient is not finite, and that is an error
        """
        algorithm = self._algorithm
        policy = algorithm.policy
        policy.set_training_mode(True)
        n_steps_before, moments = self._optimizer_state.read()
        minibatches = RolloutMinibatches(algorithm.rollout_buffer, self._batch_size, policy.device)
        algorithm._update_learning_rate(policy.optimizer)
        loop = MinibatchLoop(
            self._step,
            self._program,
            self._batch_size,
            self._state(moments),
            self._fixed,
            self._coefficients(),
            self._adam_coefficients(n_steps_before, algorithm.n_epochs * minibatches.per_epoch),
            may_stop=self._check_nan or algorithm.target_kl is not None,
            is_compared=self._is_compared and self._is_comparable(),
        )
        random_state = np.random.get_state()
        try:
            for epoch in range(algorithm.n_epochs):
                loop.epoch(minibatches.epoch())
                if loop.outcome == NOT_FINITE:
                    break
                algorithm._n_updates += 1
                if loop.outcome == KL_TOO_LARGE:
                    self._report_early_stop(epoch, loop)
                    break
        except Unsupported:
            np.random.set_state(random_state)
            raise
        finally:
            self._write(loop, n_steps_before)
        if loop.outcome == NOT_FINITE:
            self._raise_non_finite(loop, number)
        self._record(loop)

    def _state(self, moments: tuple[th.Tensor, ...]) -> StepState:
        parameters = FlatLayout.flatten(self._trained)
        buffers = dict(self._algorithm.policy.named_buffers())
        return StepState(
            parameters,
            moments,
            th.zeros_like(parameters),
            tuple(buffers[name] for name in self._step.tensors.buffers),
        )

    def _is_comparable(self) -> bool:
        """
        Whether a minibatch has the same gradient in both ways. The ratio to the policy before the update is 1 but for
        rounding, which decides what is clipped at the end of a schedule that leads to 0.
        """
        return all(limit is None or limit > MIN_CLIP_RANGE_TO_COMPARE for limit in clip_ranges(self._algorithm))

    def _coefficients(self) -> list[th.Tensor]:
        """What stays the same for a whole update: coefficients of the objective, and limits."""
        algorithm = self._algorithm
        clip_range, clip_range_vf = clip_ranges(algorithm)
        values = {
            "clip_range": clip_range,
            "clip_low": 1 - clip_range,
            "clip_high": 1 + clip_range,
            "clip_range_vf": 0.0 if clip_range_vf is None else clip_range_vf,
            "ent_coef": algorithm.ent_coef,
            "vf_coef": algorithm.vf_coef,
            "kl_limit": np.inf if algorithm.target_kl is None else 1.5 * algorithm.target_kl,
            "require_finite": float(self._check_nan),
            "max_grad_norm": algorithm.max_grad_norm,
        }
        return [self._tensor([values[name] for name in names]) for names in (COEFFICIENTS, LIMITS)]

    def _adam_coefficients(self, n_steps_before: int, n_steps: int) -> Sequence[th.Tensor]:
        optimizer = self._algorithm.policy.optimizer
        learning_rate = float(optimizer.param_groups[0]["lr"])
        settings = AdamSettings.of(optimizer)
        return self._tensor(settings.coefficients(learning_rate, n_steps_before, n_steps)).unbind()

    def _tensor(self, values: Sequence[float] | np.ndarray) -> th.Tensor:
        first = self._trained[0]
        return th.as_tensor(np.asarray(values), dtype=first.dtype, device=first.device)

    def _write(self, loop: MinibatchLoop, n_steps_before: int) -> None:
        """Put the results, of as many minibatches as were done, where SB3 has them."""
        self.n_minibatches = len(loop.statistics)
        if loop.n_steps == 0:
            return
        # Parameters that get no gradient any more keep none of an update before.
        self._algorithm.policy.optimizer.zero_grad()
        layout, state = self._step.layout, loop.state
        with th.no_grad():
            for parameter, value, gradient in zip(
                self._trained, layout.views(state.parameters), layout.views(state.gradient), strict=True
            ):
                parameter.copy_(value)
                parameter.grad = gradient
        self._optimizer_state.write(n_steps_before + loop.n_steps, state.moments)

    def _report_early_stop(self, epoch: int, loop: MinibatchLoop) -> None:
        if self._algorithm.verbose >= 1:
            approx_kl = loop.statistics[-1][STATISTICS.index("approx_kl")].item()
            print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl:.2f}")

    def _raise_non_finite(self, loop: MinibatchLoop, number: int) -> NoReturn:
        """Do the minibatch again, eagerly and under observation, to find out what is not finite in it."""
        policy, minibatch = self._algorithm.policy, loop.last_minibatch
        stop_at_minibatch(policy, number, loop.n_steps + 1, lambda: self._step.objective(minibatch).loss)

    def _record(self, loop: MinibatchLoop) -> None:
        algorithm = self._algorithm
        # SB3 averages Python's numbers, in double precision, but for the divergence. Loggers print the two differently.
        table = th.stack(loop.statistics).cpu().numpy().astype(np.float64)
        if not np.isfinite(table).all():
            # Where SB3 would have found out at the next minibatch, by the checks of the distributions.
            with th.no_grad():
                self._step.objective(loop.last_minibatch)
        found = {name: table[:, column] for column, name in enumerate(STATISTICS)}
        approx_kl = found["approx_kl"].astype(np.float32)
        buffer, logger = algorithm.rollout_buffer, algorithm.logger
        logger.record("train/entropy_loss", np.mean(found["entropy_loss"]))
        logger.record("train/policy_gradient_loss", np.mean(found["policy_gradient_loss"]))
        logger.record("train/value_loss", np.mean(found["value_loss"]))
        logger.record("train/approx_kl", np.mean(approx_kl[-loop.n_in_last_epoch :]))
        logger.record("train/clip_fraction", np.mean(found["clip_fraction"]))
        logger.record("train/loss", found["loss"][-1].item())
        variance = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        logger.record("train/explained_variance", variance)
        if hasattr(algorithm.policy, "log_std"):
            logger.record("train/std", th.exp(algorithm.policy.log_std).mean().item())
        logger.record("train/n_updates", algorithm._n_updates, exclude="tensorboard")
        clip_range, clip_range_vf = clip_ranges(algorithm)
        logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            logger.record("train/clip_range_vf", clip_range_vf)


def clip_ranges(algorithm: PPO) -> tuple[float, float | None]:
    """
    :param algorithm: an algorithm
    :return: how far the ratio may be from 1, and values from the old ones, at present
    """
    remaining = algorithm._current_progress_remaining
    # SB3 declares what its constructor takes. _setup_model() has made schedules of it.
    clip_range = algorithm.clip_range(remaining)  # type: ignore[operator]
    if algorithm.clip_range_vf is None:
        return clip_range, None
    return clip_range, algorithm.clip_range_vf(remaining)  # type: ignore[operator]
