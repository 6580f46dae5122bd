"""SAC's update (Haarnoja et al., 2018, https://arxiv.org/abs/1812.05905, algorithm 1), as SB3 makes it."""

import math
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac import SAC
from stable_baselines3.sac.policies import Actor

from sb3_walle.updates.off_policy_update import (
    OffPolicyStep,
    OffPolicyUpdate,
    ReplayRows,
    smallest_value,
    squared_errors,
)
from sb3_walle.updates.parameter_groups import ParameterGroup, network_group
from sb3_walle.updates.step import Losses, Minibatch, Observations, Parameters, Stage, UpdateStep
from sb3_walle.updates.unsupported import Unsupported

# SB3's, against the logarithm of zero where tanh is 1 but for rounding.
TANH_EPSILON = 1e-6


class SACStep(OffPolicyStep):
    """Critics, then actor and entropy coefficient, if that is learned, at the critics after their step."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("critic", ("critic",), ("critic_loss",)),
        Stage("actor", ("actor", "ent_coef"), ("actor_loss", "ent_coef", "ent_coef_loss")),
    )
    #: the entropy coefficient is that of algorithms that do not learn it
    coefficients: ClassVar[tuple[str, ...]] = ("target_entropy", "ent_coef", "tau")
    n_noise: ClassVar[int] = 2
    followers: ClassVar[tuple[str, dict[str, str]]] = ("actor", {"critic_target": "critic"})
    # Where squashed actions are at their bounds, their log-probabilities lose most of their digits, in SB3, too.
    max_difference: ClassVar[float] = 1e-2

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        if stage == "critic":
            return self._critic_losses(parameters, minibatch)
        return self._actor_losses(parameters, minibatch)

    def _critic_losses(self, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        with th.no_grad():
            actions, log_prob = self._act(rows.next_observations, minibatch.noise[1])
            value = smallest_value(self._policy.critic_target, rows.next_observations, actions)
            targets = rows.targets(value - self._ent_coef(parameters, minibatch) * log_prob)
        loss = 0.5 * squared_errors(self._policy.critic(rows.observations, rows.actions), targets, minibatch)
        return Losses({"critic": loss}, {"critic_loss": loss})

    def _actor_losses(self, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        ent_coef, target = self._ent_coef(parameters, minibatch), minibatch.coefficients["target_entropy"]
        actions, log_prob = self._act(rows.observations, minibatch.noise[0])
        value = self._value(rows.observations, actions)
        actor_loss = minibatch.mean(ent_coef * log_prob - value)
        statistics = {"actor_loss": actor_loss, "ent_coef": minibatch.mean(ent_coef.reshape(1))}
        if "ent_coef" not in parameters:
            return Losses({"actor": actor_loss}, {**statistics, "ent_coef_loss": th.zeros_like(ent_coef)})
        log_ent_coef = parameters["ent_coef"][0]
        ent_coef_loss = -minibatch.mean(log_ent_coef * (log_prob + target).detach())
        # Where the entropy is what it should be, the two terms cancel.
        size = log_prob.detach().abs().mean() + target.abs()
        return Losses(
            {"actor": actor_loss, "ent_coef": ent_coef_loss},
            {**statistics, "ent_coef_loss": ent_coef_loss},
            {"ent_coef": size, "ent_coef_loss": size * log_ent_coef.detach().abs()},
        )

    def _value(self, observations: Observations, actions: th.Tensor) -> th.Tensor:
        """What the actor maximises, ``[B, 1]``."""
        return smallest_value(self._policy.critic, observations, actions)

    def _ent_coef(self, parameters: Parameters, minibatch: Minibatch) -> th.Tensor:
        if "ent_coef" not in parameters:
            return minibatch.coefficients["ent_coef"]
        return parameters["ent_coef"][0].detach().exp()

    def _act(self, observations: Observations, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Actions and their log-probabilities, ``[B, action_dim]`` and ``[B, 1]``, as SB3's distribution has them."""
        mean, log_std, _ = self._policy.actor.get_action_dist_params(observations)
        std = th.ones_like(mean) * log_std.exp()
        gaussian = mean + noise * std
        actions = th.tanh(gaussian)
        log_density = -((gaussian - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
        log_prob = log_density.sum(dim=1) - th.log(1 - actions**2 + TANH_EPSILON).sum(dim=1)
        return actions, log_prob.reshape(-1, 1)


class SACUpdate(OffPolicyUpdate):
    """Does what SB3's ``SAC.train()`` does."""

    # Actor, two critics, and the entropy coefficient.
    eager_seconds: ClassVar[float] = 4e-3
    sb3_train: ClassVar[Any] = SAC.train
    step_class: ClassVar[type[UpdateStep]] = SACStep
    #: the actor whose actions a step computes
    actor_class: ClassVar[type[BasePolicy]] = Actor

    def check(self) -> None:
        super().check()
        actor = self.algorithm.policy.actor
        if self.algorithm.use_sde:
            raise Unsupported("it uses gSDE")
        parts: tuple[Any, ...] = (actor, actor.action_dist)
        if tuple(map(type, parts)) != (self.actor_class, SquashedDiagGaussianDistribution):
            raise Unsupported("the actor is a {} with a {}".format(*(type(part).__name__ for part in parts)))

    def optimizers(self) -> list[th.optim.Optimizer]:
        policy, entropy = self.algorithm.policy, self.algorithm.ent_coef_optimizer
        return [policy.actor.optimizer, policy.critic.optimizer, *([] if entropy is None else [entropy])]

    def make_groups(self) -> list[ParameterGroup]:
        algorithm, policy = self.algorithm, self.algorithm.policy
        groups = [network_group(policy, name, getattr(policy, name).optimizer) for name in ("actor", "critic")]
        if algorithm.ent_coef_optimizer is not None:
            optimizer = algorithm.ent_coef_optimizer
            groups.append(ParameterGroup("ent_coef", [algorithm.log_ent_coef], optimizer=optimizer))
        return [*groups, network_group(policy, "critic_target")]

    def noise(self, actions: th.Tensor) -> list[th.Tensor]:
        # As torch's distributions draw it: for the observations first, then for the next ones.
        return [self.numbers(*actions.shape).normal_() for _ in range(SACStep.n_noise)]

    def coefficients(self, index: int) -> th.Tensor:
        algorithm = self.algorithm
        follows = index % algorithm.target_update_interval == 0
        ent_coef = 0.0 if algorithm.ent_coef_optimizer is not None else algorithm.ent_coef_tensor.item()
        return self.tensor([algorithm.target_entropy, ent_coef, algorithm.tau if follows else 0.0])

    def record(self, means: dict[str, Any]) -> None:
        logger = self.algorithm.logger
        for name in ("ent_coef", "actor_loss", "critic_loss"):
            logger.record(f"train/{name}", means[name])
        if self.algorithm.ent_coef_optimizer is not None:
            logger.record("train/ent_coef_loss", means["ent_coef_loss"])
