"""
DQN's update (Mnih et al., 2013, https://arxiv.org/abs/1312.5602, algorithm 1), as SB3 makes it; and with the weights of
prioritised replay (Schaul et al., 2016, https://arxiv.org/abs/1511.05952, algorithm 1), which SB3's does not have.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch as th
from stable_baselines3.dqn import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from torch.nn import functional

from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from sb3_walle.sb3_private import progress_remaining, vec_normalize_of
from sb3_walle.updates.flat import clipped
from sb3_walle.updates.off_policy_update import OffPolicyStep, OffPolicyUpdate, ReplayRows
from sb3_walle.updates.parameter_groups import ParameterGroup, network_group
from sb3_walle.updates.step import Gradient, Losses, Minibatch, Parameters, Stage, State, UpdateStep


class DQNStep(OffPolicyStep):
    """A step of the Q-network. Its target follows when SB3 says so, between the updates."""

    stages: ClassVar[tuple[Stage, ...]] = (Stage("q_net", ("q_net",), ("loss",), has_errors=True),)
    coefficients: ClassVar[tuple[str, ...]] = ("max_grad_norm",)

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        loss, errors = weighted_loss(self._policy, minibatch.rows, minibatch.mean)
        return Losses({"q_net": loss}, {"loss": loss}, errors=errors)

    def apply(
        self, stage: Stage, state: State, gradient: Gradient, minibatch: Minibatch
    ) -> tuple[State, dict[str, th.Tensor]]:
        (network,) = stage.groups
        max_norm = minibatch.coefficients["max_grad_norm"]
        vector = clipped(gradient.vectors[network], gradient.norm(network), max_norm)
        return super().apply(stage, state, gradient._replace(vectors={network: vector}), minibatch)


def weighted_loss(
    policy: DQNPolicy, rows: ReplayRows, mean: Callable[[th.Tensor], th.Tensor] = th.mean
) -> tuple[th.Tensor, th.Tensor]:
    """:return: the loss, ``[]``, and the samples' temporal-difference errors, ``[B, 1]``"""
    with th.no_grad():
        targets = rows.targets(policy.q_net_target(rows.next_observations).max(dim=1, keepdim=True).values)
    values = th.gather(policy.q_net(rows.observations), dim=1, index=rows.actions.long())
    losses = functional.smooth_l1_loss(values, targets, reduction="none")
    return mean(rows.weights * losses), (targets - values).detach()


class DQNUpdate(OffPolicyUpdate):
    """Does what SB3's ``DQN.train()`` does, or ``train_prioritized()``."""

    # One network, and small minibatches.
    eager_seconds: ClassVar[float] = 1e-3
    sb3_train: ClassVar[Any] = DQN.train
    step_class: ClassVar[type[UpdateStep]] = DQNStep

    def optimizers(self) -> list[th.optim.Optimizer]:
        return [self.algorithm.policy.optimizer]

    def make_groups(self) -> list[ParameterGroup]:
        policy = self.algorithm.policy
        (network,) = self.step_class.stages[0].groups
        return [network_group(policy, network, policy.optimizer), network_group(policy, f"{network}_target")]

    def sample(self) -> Any:
        algorithm, buffer = self.algorithm, self.buffer
        if isinstance(buffer, PrioritizedReplayBuffer):
            return buffer.sample_weighted(self.batch_size, vec_normalize_of(algorithm), progress_remaining(algorithm))
        return super().sample()

    def learned_from(self, samples: Any, found: th.Tensor) -> None:
        if isinstance(self.buffer, PrioritizedReplayBuffer):
            self.buffer.update_priorities(samples.indices, found[len(self.step_class.stages[0].statistics) :])

    def coefficients(self, index: int) -> th.Tensor:
        return self.tensor([self.algorithm.max_grad_norm])

    def record(self, means: dict[str, Any]) -> None:
        self.algorithm.logger.record("train/loss", means["loss"])
