"""CrossQ with asynchronous samplers. Needs sb3-contrib."""

from sb3_contrib.crossq import CrossQ

from sb3_walle.off_policy import AsyncOffPolicyMixin


class AsyncCrossQ(AsyncOffPolicyMixin, CrossQ):
    """
    CrossQ (Bhatt et al., 2024, https://arxiv.org/abs/1902.05605) as in sb3-contrib, with experience from N samplers,
    which normalise with the running statistics that belong to the weights.

    Takes the arguments of sb3-contrib's ``CrossQ``, and those of :class:`AsyncOffPolicyMixin`. Its updates are always
    eager.

    .. code-block:: python

        model = AsyncCrossQ("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
    """
