"""
TRPO's update (Schulman et al., 2015, https://arxiv.org/abs/1502.05477), as sb3-contrib makes it. Needs sb3-contrib.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.trpo import TRPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional

from sb3_walle.sb3_private import add_updates, n_updates, with_actor_gradients
from sb3_walle.updates.algorithm_update import Inputs, Progress
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.ppo_objective import Mean, PackedRows
from sb3_walle.updates.rollout_update import RolloutUpdate
from sb3_walle.updates.step import Losses, Minibatch, Parameters, Stage, UpdateStep
from sb3_walle.updates.unsupported import Unsupported

#: parameters of the actor, gradients of objective and divergence as vectors, and shapes of the parameters
ActorGradients: TypeAlias = tuple[list[th.nn.Parameter], th.Tensor, th.Tensor, list[tuple[int, ...]]]


class TRPOCriticStep(UpdateStep):
    """One minibatch of the critic."""

    stages: ClassVar[tuple[Stage, ...]] = (Stage("critic", ("critic",), ("value_loss",)),)
    rows: ClassVar[Any] = PackedRows
    coefficients: ClassVar[tuple[str, ...]] = ()

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        loss = self.value_loss(minibatch)
        return Losses({"critic": loss}, {"value_loss": loss})

    def value_loss(self, minibatch: Minibatch) -> th.Tensor:
        """What the critic minimises, ``[]``."""
        return value_loss(self._policy, minibatch.rows.unpacked(), minibatch.mean)

    def log_prob(self, minibatch: Minibatch) -> th.Tensor:
        """Mean log-probability of the actions, ``[]``."""
        rows = minibatch.rows.unpacked()
        actions = rows.actions
        if isinstance(self._policy.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        return self._policy.evaluate_actions(rows.observations, actions)[1].mean()


class TRPOUpdate(RolloutUpdate):
    """
    Does what ``TRPO.train()`` does with the critic, after :func:`update_policy`. The step of the policy takes some
    passes over the whole rollout, and the critic thousands of small minibatches.
    """

    sb3_train: ClassVar[Any] = TRPO.train
    step_class: ClassVar[type[UpdateStep]] = TRPOCriticStep

    def check(self) -> None:
        super().check()
        if getattr(self.algorithm, "check_nan", False):
            raise Unsupported("check_nan looks at every gradient")

    def make_groups(self) -> list[ParameterGroup]:
        of_critic = self.names_with_gradient(TRPOCriticStep.value_loss)
        of_actor = self.names_with_gradient(TRPOCriticStep.log_prob)
        # What both share is the actor's, unless its name says otherwise: so does sb3-contrib tell them apart.
        return [self.trained_group("critic", [name for name in of_critic if "value" in name or name not in of_actor])]

    def n_minibatches(self) -> int:
        return self.algorithm.n_critic_updates * self.minibatches_per_epoch()

    def n_minibatches_made(self) -> int:
        return n_updates(self.algorithm) * self.n_minibatches()

    def minibatches(self, progress: Progress) -> Iterator[Inputs]:
        minibatches, no_numbers = self.rollout(), [self.numbers(0)]
        for _ in range(self.algorithm.n_critic_updates):
            for rows in minibatches.epoch():
                yield Inputs("update", list(rows), no_numbers)

    def finish(self, number: int, progress: Progress) -> None:
        progress.groups[0].leave_gradients()
        _finish(self.algorithm, th.stack(progress.statistics)[:, 0].tolist())


def value_loss(policy: ActorCriticPolicy, rows: Any, mean: Mean = th.mean) -> th.Tensor:
    """
    :param rows: samples of a rollout buffer
    :param mean: takes the mean over the samples
    :return: mean squared error of the values, ``[]``
    """
    values = policy.predict_values(rows.observations).flatten()
    return mean(functional.mse_loss(rows.returns, values, reduction="none"))


def update_policy(algorithm: TRPO) -> list[th.nn.Parameter]:
    """
    The first part of ``TRPO.train()``: make the natural gradient step and its line search, and record all that
    sb3-contrib records of an update but the critic's loss.

    :return: the parameters of the actor
    """
    n_critic_updates, algorithm.n_critic_updates = algorithm.n_critic_updates, 0
    of_actor: list[th.nn.Parameter] = []

    def compute(divergence: th.Tensor, objective: th.Tensor) -> ActorGradients:
        found = actor_gradients(algorithm.policy, divergence, objective)
        of_actor.extend(found[0])
        return found

    try:
        with with_actor_gradients(algorithm, compute), warnings.catch_warnings():
            # Of the critic's losses, of which there are none.
            warnings.filterwarnings("ignore", "Mean of empty slice|invalid value encountered in .*divide")
            TRPO.train(algorithm)
    finally:
        algorithm.n_critic_updates = n_critic_updates
    # The update counts when it is complete.
    add_updates(algorithm, -1)
    return of_actor


def actor_gradients(policy: ActorCriticPolicy, divergence: th.Tensor, objective: th.Tensor) -> ActorGradients:
    """
    What sb3-contrib computes, by one backward pass instead of one for each parameter: each product with the Hessian, of
    which there are up to ``cg_max_steps``, differentiates all of them once more.
    """
    # By name, as sb3-contrib tells the critic's own parameters.
    parameters = [parameter for name, parameter in policy.named_parameters() if "value" not in name]
    found = th.autograd.grad(divergence, parameters, create_graph=True, allow_unused=True)
    of_divergence = {p: gradient for p, gradient in zip(parameters, found, strict=True) if gradient is not None}
    of_objective = th.autograd.grad(objective, list(of_divergence), retain_graph=True)
    return list(of_divergence), _flat(of_objective), _flat(of_divergence.values()), [p.shape for p in of_divergence]


def update_critic(algorithm: TRPO, of_actor: Sequence[th.nn.Parameter]) -> None:
    """
    The second part of ``TRPO.train()``: the minibatches of the critic.

    :param of_actor: the parameters that it leaves alone
    """
    policy, losses = algorithm.policy, []
    for _ in range(algorithm.n_critic_updates):
        for rows in algorithm.rollout_buffer.get(algorithm.batch_size):
            loss = value_loss(policy, rows)
            losses.append(loss.item())
            policy.optimizer.zero_grad()
            loss.backward()
            for parameter in of_actor:
                parameter.grad = None
            policy.optimizer.step()
    _finish(algorithm, losses)


def _flat(tensors: Iterable[th.Tensor]) -> th.Tensor:
    return th.cat([tensor.reshape(-1) for tensor in tensors])


def _finish(algorithm: TRPO, losses: Sequence[float]) -> None:
    add_updates(algorithm, 1)
    algorithm.logger.record("train/value_loss", np.mean(losses))
