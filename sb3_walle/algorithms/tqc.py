"""TQC with asynchronous samplers. Needs sb3-contrib."""

from sb3_contrib.tqc import TQC

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.updates.tqc_update import TQCUpdate


class AsyncTQC(AsyncOffPolicyMixin, TQC):
    """
    Truncated Quantile Critics (Kuznetsov et al., 2020, https://arxiv.org/abs/2005.04269) as in sb3-contrib, with
    experience from N samplers.

    Takes the arguments of sb3-contrib's ``TQC``, and those of :class:`AsyncOffPolicyMixin`.

    .. code-block:: python

        model = AsyncTQC("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """

    update_class = TQCUpdate
