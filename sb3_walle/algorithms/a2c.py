"""A2C with asynchronous samplers."""

from stable_baselines3.a2c import A2C

from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.rollout_size import single_advantage_kept


class AsyncA2C(AsyncOnPolicyMixin, A2C):
    """
    Advantage Actor Critic (Mnih et al., 2016, https://arxiv.org/abs/1602.01783) as in SB3, with experience from N
    samplers.

    Takes the arguments of SB3's ``A2C``, and those of :class:`AsyncOnPolicyMixin`. Its gradient is that of the policy
    that chose the actions: there is no ratio in it that would correct for a policy lag. So ``"sync"`` is its only mode.

    .. code-block:: python

        model = AsyncA2C("MlpPolicy", "HalfCheetah-v4", n_samplers=10, n_steps=64)
        model.learn()
    """

    def _update_eagerly(self) -> None:
        # An episode may consist of one step.
        with single_advantage_kept(self, self.rollout_buffer.buffer_size * self.rollout_buffer.n_envs):
            super()._update_eagerly()
