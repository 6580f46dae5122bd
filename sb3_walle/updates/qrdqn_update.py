"""
QR-DQN's update (Dabney et al., 2018, https://arxiv.org/abs/1710.10044, algorithm 1), as sb3-contrib makes it. Needs
sb3-contrib.
"""

from typing import Any, ClassVar

import numpy as np
import torch as th
from sb3_contrib.qrdqn import QRDQN

from sb3_walle.updates.dqn_update import DQNStep, DQNUpdate
from sb3_walle.updates.off_policy_update import ReplayRows
from sb3_walle.updates.quantile_loss import quantile_huber_losses
from sb3_walle.updates.step import Losses, Minibatch, Parameters, Stage, UpdateStep


class QRDQNStep(DQNStep):
    """A step of the network. Its target follows when SB3 says so, between the updates."""

    stages: ClassVar[tuple[Stage, ...]] = (Stage("quantile_net", ("quantile_net",), ("loss",)),)

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        with th.no_grad():
            following = self._policy.quantile_net_target(rows.next_observations)
            best = following.mean(dim=1).argmax(dim=1, keepdim=True)
            targets = rows.targets(_quantiles_of(following, best))
        quantiles = _quantiles_of(self._policy.quantile_net(rows.observations), rows.actions.long())
        loss = minibatch.mean(quantile_huber_losses(quantiles, targets).sum(dim=1))
        return Losses({"quantile_net": loss}, {"loss": loss})


def _quantiles_of(quantiles: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """
    :param quantiles: ``[B, n_quantiles, n_actions]``
    :param actions: ``[B, 1]``
    :return: quantiles of these actions, ``[B, n_quantiles]``
    """
    return quantiles.gather(2, actions.unsqueeze(1).expand(-1, quantiles.shape[1], 1)).squeeze(2)


class QRDQNUpdate(DQNUpdate):
    """Does what sb3-contrib's ``QRDQN.train()`` does."""

    sb3_train: ClassVar[Any] = QRDQN.train
    step_class: ClassVar[type[UpdateStep]] = QRDQNStep

    def coefficients(self, index: int) -> th.Tensor:
        limit = self.algorithm.max_grad_norm
        return self.tensor([np.inf if limit is None else limit])
