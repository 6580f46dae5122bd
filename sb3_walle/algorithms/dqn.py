"""DQN with asynchronous samplers."""

from stable_baselines3.dqn import DQN

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.dqn_update import DQNUpdate


class AsyncDQN(AsyncOffPolicyMixin, DQN):
    """
    Deep Q-Network (Mnih et al., 2013, https://arxiv.org/abs/1312.5602) as in SB3, with
    experience from N samplers.

    Takes the arguments of SB3's ``DQN``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncDQN("MlpPolicy", "CartPole-v1", n_samplers=10)
        model.learn()
    """

    has_noise_ladder = True
    update_class = DQNUpdate
