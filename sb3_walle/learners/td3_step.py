"""
One gradient step of TD3 (Fujimoto et al., 2018, https://arxiv.org/abs/1802.09477, algorithm 1), as SB3 makes it. DDPG
is TD3 with one critic, without noise and delay.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch as th
from torch.nn import functional

from sb3_walle.learners.replay_groups import GroupState
from sb3_walle.learners.replay_step import ReplayMinibatch, ReplayStep, smallest_value


class TD3CriticStep(ReplayStep):
    """A step that changes the critics only, as all but every so many do."""

    statistics: ClassVar[tuple[str, ...]] = ("critic_loss",)
    coefficients: ClassVar[tuple[str, ...]] = ("noise_clip", "tau")
    n_noise: ClassVar[int] = 1

    def _step(
        self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch
    ) -> tuple[dict[str, GroupState], Mapping[str, th.Tensor]]:
        targets = self._targets(state, minibatch)
        parameters = self._leaves("critic", state["critic"])
        with th.enable_grad(), self._with("critic", parameters):
            values = self._policy.critic(minibatch.observations, minibatch.actions)
            loss = th.stack([functional.mse_loss(value, targets) for value in values]).sum()
            critic = self._descended("critic", state["critic"], loss, parameters, minibatch)
        return {"critic": critic}, {"critic_loss": loss}

    def _targets(self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch) -> th.Tensor:
        """What the critics' values are to be, ``[B, 1]``."""
        clip = minibatch.coefficients["noise_clip"]
        with th.no_grad():
            with self._with("actor_target", self._views("actor_target", state["actor_target"])):
                actions = self._policy.actor_target(minibatch.next_observations)
            noise = th.maximum(th.minimum(minibatch.noise[0], clip), -clip)
            actions = (actions + noise).clamp(-1, 1)
            with self._with("critic_target", self._views("critic_target", state["critic_target"])):
                value = smallest_value(self._policy.critic_target, minibatch.next_observations, actions)
            return minibatch.rewards + (1 - minibatch.dones) * minibatch.discounts * value


class TD3Step(TD3CriticStep):
    """A step that changes critics, actor and targets."""

    statistics: ClassVar[tuple[str, ...]] = ("critic_loss", "actor_loss")

    def _step(
        self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch
    ) -> tuple[dict[str, GroupState], Mapping[str, th.Tensor]]:
        new, statistics = super()._step(state, minibatch)
        parameters = self._leaves("actor", state["actor"])
        # The actor is judged by the first critic as it is now.
        with (
            th.enable_grad(),
            self._with("critic", self._views("critic", new["critic"])),
            self._with("actor", parameters),
        ):
            observations = minibatch.observations
            loss = -self._policy.critic.q1_forward(observations, self._policy.actor(observations)).mean()
            new["actor"] = self._descended("actor", state["actor"], loss, parameters, minibatch)
        tau = minibatch.coefficients["tau"]
        for name in ("critic", "actor"):
            new[f"{name}_target"] = self._followed(state[f"{name}_target"], new[name], tau)
        return new, {**statistics, "actor_loss": loss}
