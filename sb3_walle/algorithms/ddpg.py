"""DDPG with asynchronous samplers."""

from stable_baselines3.ddpg import DDPG

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.td3_update import TD3Update


class AsyncDDPG(AsyncOffPolicyMixin, DDPG):
    """
    Deep Deterministic Policy Gradient (Lillicrap et al., 2016, https://arxiv.org/abs/1509.02971) as in SB3, with
    experience from N samplers.

    Takes the arguments of SB3's ``DDPG``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncDDPG("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """

    has_noise_ladder = True
    update_class = TD3Update
