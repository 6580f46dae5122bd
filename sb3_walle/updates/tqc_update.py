"""
TQC's update (Kuznetsov et al., 2020, https://arxiv.org/abs/2005.04269, algorithm 1), as sb3-contrib makes it. Needs
sb3-contrib.
"""

from collections.abc import Hashable
from typing import Any, ClassVar

import torch as th
from sb3_contrib.tqc import TQC
from sb3_contrib.tqc.policies import Actor
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.updates.off_policy_update import ReplayRows
from sb3_walle.updates.quantile_loss import quantile_huber_losses
from sb3_walle.updates.sac_update import SACStep, SACUpdate
from sb3_walle.updates.step import Losses, Minibatch, Observations, Parameters, UpdateStep


class TQCStep(SACStep):
    """SAC's, but critics give quantiles of the return, of which the largest are no targets."""

    def _critic_losses(self, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        with th.no_grad():
            actions, log_prob = self._act(rows.next_observations, minibatch.noise[1])
            quantiles = self._policy.critic_target(rows.next_observations, actions).flatten(1)
            kept = th.sort(quantiles).values[:, : self.spec.variant]
            targets = rows.targets(kept - self._ent_coef(parameters, minibatch) * log_prob)
        quantiles = self._policy.critic(rows.observations, rows.actions)
        loss = minibatch.mean(quantile_huber_losses(quantiles, targets.unsqueeze(1)))
        return Losses({"critic": loss}, {"critic_loss": loss})

    def _value(self, observations: Observations, actions: th.Tensor) -> th.Tensor:
        return self._policy.critic(observations, actions).mean(dim=2).mean(dim=1, keepdim=True)


class TQCUpdate(SACUpdate):
    """Does what sb3-contrib's ``TQC.train()`` does."""

    eager_seconds: ClassVar[float] = 5e-3
    sb3_train: ClassVar[Any] = TQC.train
    step_class: ClassVar[type[UpdateStep]] = TQCStep
    actor_class: ClassVar[type[BasePolicy]] = Actor

    def variant(self) -> Hashable:
        """How many quantiles are targets."""
        algorithm = self.algorithm
        critic = algorithm.policy.critic
        return critic.quantiles_total - algorithm.top_quantiles_to_drop_per_net * critic.n_critics
