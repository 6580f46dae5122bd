"""
TD3's update (Fujimoto et al., 2018, https://arxiv.org/abs/1802.09477, algorithm 1), as SB3 makes it. DDPG is TD3 with
one critic, without noise and delay.
"""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.td3 import TD3

from sb3_walle.sb3_private import n_updates
from sb3_walle.updates.off_policy_update import (
    OffPolicyStep,
    OffPolicyUpdate,
    ReplayRows,
    smallest_value,
    squared_errors,
)
from sb3_walle.updates.parameter_groups import ParameterGroup, network_group
from sb3_walle.updates.step import Losses, Minibatch, Parameters, Stage, UpdateStep

_CRITIC, _ALL = "critic", "all"


class TD3Step(OffPolicyStep):
    """Critics, and in every so many steps the actor at the critics after their step, and targets."""

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("critic", ("critic",), ("critic_loss",)),
        Stage("actor", ("actor",), ("actor_loss",)),
    )
    coefficients: ClassVar[tuple[str, ...]] = ("noise_clip", "tau")
    n_noise: ClassVar[int] = 1
    followers: ClassVar[tuple[str, dict[str, str]]] = (
        "actor",
        {"critic_target": "critic", "actor_target": "actor"},
    )

    def losses(self, stage: str, parameters: Parameters, minibatch: Minibatch) -> Losses:
        rows: ReplayRows = minibatch.rows
        if stage == "critic":
            values = self._policy.critic(rows.observations, rows.actions)
            loss = squared_errors(values, self._targets(minibatch), minibatch)
        else:
            values = self._policy.critic.q1_forward(rows.observations, self._policy.actor(rows.observations))
            loss = -minibatch.mean(values)
        return Losses({stage: loss}, {f"{stage}_loss": loss})

    def _targets(self, minibatch: Minibatch) -> th.Tensor:
        """What the critics' values should be, ``[B, 1]``."""
        rows: ReplayRows = minibatch.rows
        clip = minibatch.coefficients["noise_clip"]
        with th.no_grad():
            noise = th.maximum(th.minimum(minibatch.noise[0], clip), -clip)
            actions = (self._policy.actor_target(rows.next_observations) + noise).clamp(-1, 1)
            return rows.targets(smallest_value(self._policy.critic_target, rows.next_observations, actions))


class TD3Update(OffPolicyUpdate):
    """Does what SB3's ``TD3.train()`` does."""

    eager_seconds: ClassVar[float] = 2e-3
    sb3_train: ClassVar[Any] = TD3.train
    step_class: ClassVar[type[UpdateStep]] = TD3Step

    def programs(self) -> dict[str, tuple[str, ...]]:
        every: dict[str, tuple[str, ...]] = {_ALL: ("critic", "actor")}
        return every if self.algorithm.policy_delay == 1 else {**every, _CRITIC: ("critic",)}

    def program(self, index: int) -> str:
        # Counted before each step. What was counted during this update is added at its end.
        n_steps = n_updates(self.algorithm) + index + 1
        return _ALL if n_steps % self.algorithm.policy_delay == 0 else _CRITIC

    def optimizers(self) -> list[th.optim.Optimizer]:
        return [self.algorithm.policy.actor.optimizer, self.algorithm.policy.critic.optimizer]

    def make_groups(self) -> list[ParameterGroup]:
        policy = self.algorithm.policy
        trained = [network_group(policy, name, getattr(policy, name).optimizer) for name in ("actor", "critic")]
        return [*trained, *(network_group(policy, name) for name in ("actor_target", "critic_target"))]

    def noise(self, actions: th.Tensor) -> list[th.Tensor]:
        return [actions.clone().normal_(0, self.algorithm.target_policy_noise)]

    def coefficients(self, index: int) -> th.Tensor:
        return self.tensor([self.algorithm.target_noise_clip, self.algorithm.tau])

    def record(self, means: dict[str, Any]) -> None:
        for name in ("actor_loss", "critic_loss"):
            if name in means:
                self.algorithm.logger.record(f"train/{name}", means[name])
