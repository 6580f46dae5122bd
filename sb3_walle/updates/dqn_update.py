"""DQN's update (Mnih et al., 2013, https://arxiv.org/abs/1312.5602, algorithm 1), as SB3 makes it."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.dqn import DQN
from torch.nn import functional

from sb3_walle.updates.flat import clipped
from sb3_walle.updates.off_policy_update import OffPolicyStep, OffPolicyUpdate, ReplayRows
from sb3_walle.updates.parameter_groups import ParameterGroup, network_group
from sb3_walle.updates.step import Gradient, Losses, Minibatch, Parameters, Stage, State, UpdateStep


class DQNStep(OffPolicyStep):
    """A step of the Q-network. Its target follows when SB3 says so, between the updates."""

    stages: ClassVar[tuple[Stage, ...]] = (Stage("q_net", ("q_net",), ("loss",)),)
    coefficients: ClassVar[tuple[str, ...]] = ("max_grad_norm",)

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        with th.no_grad():
            targets = rows.targets(self._policy.q_net_target(rows.next_observations).max(dim=1, keepdim=True).values)
        values = th.gather(self._policy.q_net(rows.observations), dim=1, index=rows.actions.long())
        loss = functional.smooth_l1_loss(values, targets)
        return Losses({"q_net": loss}, {"loss": loss})

    def apply(
        self, stage: Stage, state: State, gradient: Gradient, minibatch: Minibatch
    ) -> tuple[State, dict[str, th.Tensor]]:
        vector, _ = clipped(gradient.vectors["q_net"], minibatch.coefficients["max_grad_norm"])
        return super().apply(stage, state, gradient._replace(vectors={"q_net": vector}), minibatch)


class DQNUpdate(OffPolicyUpdate):
    """Does what SB3's ``DQN.train()`` does."""

    # One network, and small minibatches.
    eager_seconds: ClassVar[float] = 1e-3
    sb3_train: ClassVar[Any] = DQN.train
    step_class: ClassVar[type[UpdateStep]] = DQNStep

    def optimizers(self) -> list[th.optim.Optimizer]:
        return [self.algorithm.policy.optimizer]

    def make_groups(self) -> list[ParameterGroup]:
        policy = self.algorithm.policy
        return [network_group(policy, "q_net", policy.optimizer), network_group(policy, "q_net_target")]

    def coefficients(self, index: int) -> th.Tensor:
        return self.tensor([self.algorithm.max_grad_norm])

    def record(self, means: dict[str, Any]) -> None:
        self.algorithm.logger.record("train/loss", means["loss"])
