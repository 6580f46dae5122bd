"""TD3 with asynchronous samplers."""

from stable_baselines3.td3 import TD3

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.td3_update import TD3Update


class AsyncTD3(AsyncOffPolicyMixin, TD3):
    """
    Twin Delayed DDPG (Fujimoto et al., 2018, https://arxiv.org/abs/1802.09477) as in SB3, with
    experience from N samplers.

    Takes the arguments of SB3's ``TD3``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncTD3("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """

    has_noise_ladder = True
    update_class = TD3Update
