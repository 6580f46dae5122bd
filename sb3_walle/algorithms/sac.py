"""SAC with asynchronous samplers."""

from stable_baselines3.sac import SAC

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.sac_update import SACUpdate


class AsyncSAC(AsyncOffPolicyMixin, SAC):
    """
    Soft Actor-Critic (Haarnoja et al., 2018, https://arxiv.org/abs/1801.01290) as in SB3, with
    experience from N samplers.

    Takes the arguments of SB3's ``SAC``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncSAC("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """

    update_class = SACUpdate
