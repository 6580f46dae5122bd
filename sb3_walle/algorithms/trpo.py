"""TRPO with asynchronous samplers. Needs sb3-contrib."""

import math
from contextlib import nullcontext

from sb3_contrib.trpo import TRPO

from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.on_policy.rollout_size import single_advantage_kept
from sb3_walle.sb3_private import has_own_actor_gradients
from sb3_walle.updates.finite import finite_updates
from sb3_walle.updates.trpo_update import TRPOUpdate, update_critic, update_policy
from sb3_walle.updates.updater import Updater


class AsyncTRPO(AsyncOnPolicyMixin, TRPO):
    """
    Trust Region Policy Optimization (Schulman et al., 2015, https://arxiv.org/abs/1502.05477) as in sb3-contrib, with
    experience from N samplers.

    Takes the arguments of sb3-contrib's ``TRPO``, and those of :class:`AsyncOnPolicyMixin`. In mode ``"pipelined"`` it
    learns from what the policy before the last update did. There, the ratio in its surrogate is one to the current
    policy, around which the trust region lies, and advantages and returns are corrected by the ratio of that one to the
    policy that chose the actions, as :class:`AsyncPPO`'s are; see
    :func:`~sb3_walle.on_policy.policy_lag.correct_for_policy_lag`.

    The critic has compiled updates. Unless ``learner="eager"``, natural gradients are computed in fewer backward passes
    than sb3-contrib's, and agree with those within rounding.

    .. code-block:: python

        model = AsyncTRPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """

    supported_modes = ("sync", "pipelined")
    update_class = TRPOUpdate

    def _correct_for_policy_lag(self) -> float | None:
        # A buffer that was trained on before is flattened, and was prepared then.
        if self.rollout_buffer.generator_ready:
            return None
        return correct_for_policy_lag(self.rollout_buffer, self.policy, self.normalize_advantage)

    def _get_updater(self) -> Updater | None:
        # Without one, the whole update is sb3-contrib's own.
        return None if self.learner == "eager" or self.n_critic_updates == 0 else super()._get_updater()

    def _trains_as_sb3(self) -> bool:
        return super()._trains_as_sb3() and not has_own_actor_gradients(self)

    def _update(self) -> None:
        # An episode may consist of one step.
        n_samples = self.rollout_buffer.buffer_size * self.rollout_buffer.n_envs
        with single_advantage_kept(self, math.ceil(n_samples / self.sub_sampling_factor)):
            super()._update()

    def _update_with(self, updater: Updater) -> None:
        of_actor, number = update_policy(self), self.policy_version + 1

        def eagerly() -> None:
            with finite_updates(self.policy, number) if self.check_nan else nullcontext():
                update_critic(self, of_actor)

        updater.train(number, eagerly)
