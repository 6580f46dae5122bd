"""One gradient step of DQN (Mnih et al., 2013, https://arxiv.org/abs/1312.5602, algorithm 1), as SB3 makes it."""

from collections.abc import Mapping
from typing import ClassVar

import torch as th
from torch.nn import functional

from sb3_walle.learners.replay_groups import GroupState
from sb3_walle.learners.replay_step import ReplayMinibatch, ReplayStep


class DQNStep(ReplayStep):
    """A step of the Q-network. Its target follows when SB3 says so, between the updates."""

    statistics: ClassVar[tuple[str, ...]] = ("loss",)
    coefficients: ClassVar[tuple[str, ...]] = ("max_grad_norm",)
    n_noise: ClassVar[int] = 0

    def _step(
        self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch
    ) -> tuple[dict[str, GroupState], Mapping[str, th.Tensor]]:
        targets = self._targets(state, minibatch)
        parameters = self._leaves("q_net", state["q_net"])
        with th.enable_grad(), self._with("q_net", parameters):
            values = self._policy.q_net(minibatch.observations)
            values = th.gather(values, dim=1, index=minibatch.actions.long())
            loss = functional.smooth_l1_loss(values, targets)
            max_norm = minibatch.coefficients["max_grad_norm"]
            q_net = self._descended("q_net", state["q_net"], loss, parameters, minibatch, max_norm)
        return {"q_net": q_net}, {"loss": loss}

    def _targets(self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch) -> th.Tensor:
        """What the values of the actions taken are to be, ``[B, 1]``."""
        with th.no_grad(), self._with("q_net_target", self._views("q_net_target", state["q_net_target"])):
            value = self._policy.q_net_target(minibatch.next_observations).max(dim=1, keepdim=True).values
            return minibatch.rewards + (1 - minibatch.dones) * minibatch.discounts * value
