"""QR-DQN with asynchronous samplers. Needs sb3-contrib."""

from sb3_contrib.qrdqn import QRDQN

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.qrdqn_update import QRDQNUpdate


class AsyncQRDQN(AsyncOffPolicyMixin, QRDQN):
    """
    Quantile Regression DQN (Dabney et al., 2018, https://arxiv.org/abs/1710.10044) as in sb3-contrib, with
    experience from N samplers.

    Takes the arguments of sb3-contrib's ``QRDQN``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncQRDQN("MlpPolicy", "CartPole-v1", n_samplers=10)
        model.learn()
    """

    has_noise_ladder = True
    update_class = QRDQNUpdate
