"""One gradient step of SAC (Haarnoja et al., 2018, https://arxiv.org/abs/1812.05905, algorithm 1), as SB3 makes it."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch as th
from torch.nn import functional

from sb3_walle.learners.replay_groups import GroupState
from sb3_walle.learners.replay_step import Observations, ReplayMinibatch, ReplayStep, smallest_value

# SB3's, against the logarithm of zero where tanh is 1 but for rounding.
TANH_EPSILON = 1e-6


class SACStep(ReplayStep):
    """Critics, actor, targets, and the entropy coefficient if it is learned."""

    statistics: ClassVar[tuple[str, ...]] = ("ent_coef", "actor_loss", "critic_loss", "ent_coef_loss")
    #: the entropy coefficient is that of algorithms that do not learn it
    coefficients: ClassVar[tuple[str, ...]] = ("target_entropy", "ent_coef", "tau")
    n_noise: ClassVar[int] = 2

    def _step(
        self, state: Mapping[str, GroupState], minibatch: ReplayMinibatch
    ) -> tuple[dict[str, GroupState], Mapping[str, th.Tensor]]:
        new: dict[str, GroupState] = {}
        actor_parameters = self._leaves("actor", state["actor"])
        with th.enable_grad(), self._with("actor", actor_parameters):
            actions, log_prob = self._act(minibatch.observations, minibatch.noise[0])
        ent_coef, ent_coef_loss = minibatch.coefficients["ent_coef"], th.zeros_like(log_prob[0])
        if "ent_coef" in self.groups:
            ent_coef, ent_coef_loss, new["ent_coef"] = self._entropy(state["ent_coef"], log_prob, minibatch)
        targets = self._targets(state, minibatch, actor_parameters, ent_coef)

        critic_parameters = self._leaves("critic", state["critic"])
        with th.enable_grad(), self._with("critic", critic_parameters):
            values = self._policy.critic(minibatch.observations, minibatch.actions)
            critic_loss = 0.5 * th.stack([functional.mse_loss(value, targets) for value in values]).sum()
            new["critic"] = self._descended("critic", state["critic"], critic_loss, critic_parameters, minibatch)

        # The actor is judged by the critics as they are now.
        with th.enable_grad(), self._with("critic", self._views("critic", new["critic"])):
            value = smallest_value(self._policy.critic, minibatch.observations, actions)
            actor_loss = (ent_coef * log_prob - value).mean()
            new["actor"] = self._descended("actor", state["actor"], actor_loss, actor_parameters, minibatch)

        tau = minibatch.coefficients["tau"]
        new["critic_target"] = self._followed(state["critic_target"], new["critic"], tau)
        losses = {"actor_loss": actor_loss, "critic_loss": critic_loss, "ent_coef_loss": ent_coef_loss}
        return new, {"ent_coef": ent_coef, **losses}

    def _act(self, observations: Observations, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Actions and their log-probabilities, ``[B, action_dim]`` and ``[B, 1]``, as SB3's distribution has them."""
        mean, log_std, _ = self._policy.actor.get_action_dist_params(observations)
        std = th.ones_like(mean) * log_std.exp()
        gaussian = mean + noise * std
        actions = th.tanh(gaussian)
        log_density = -((gaussian - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
        log_prob = log_density.sum(dim=1) - th.log(1 - actions**2 + TANH_EPSILON).sum(dim=1)
        return actions, log_prob.reshape(-1, 1)

    def _entropy(
        self, state: GroupState, log_prob: th.Tensor, minibatch: ReplayMinibatch
    ) -> tuple[th.Tensor, th.Tensor, GroupState]:
        """The coefficient that counts in this step, the loss, and the group for the next one."""
        with th.enable_grad():
            (log_ent_coef,) = self._leaves("ent_coef", state)
            surplus = (log_prob + minibatch.coefficients["target_entropy"]).detach()
            loss = -(log_ent_coef * surplus).mean()
            new = self._descended("ent_coef", state, loss, [log_ent_coef], minibatch)
        return log_ent_coef.detach().exp(), loss, new

    def _targets(
        self,
        state: Mapping[str, GroupState],
        minibatch: ReplayMinibatch,
        actor_parameters: list[th.Tensor],
        ent_coef: th.Tensor,
    ) -> th.Tensor:
        """What the critics' values are to be, ``[B, 1]``."""
        with th.no_grad():
            with self._with("actor", actor_parameters):
                actions, log_prob = self._act(minibatch.next_observations, minibatch.noise[1])
            with self._with("critic_target", self._views("critic_target", state["critic_target"])):
                value = smallest_value(self._policy.critic_target, minibatch.next_observations, actions)
            value = value - ent_coef * log_prob
            return minibatch.rewards + (1 - minibatch.dones) * minibatch.discounts * value
