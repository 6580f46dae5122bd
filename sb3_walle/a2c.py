"""A2C with asynchronous samplers."""

from typing import Any, ClassVar, TypeVar

from stable_baselines3.a2c import A2C
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_walle.on_policy import AsyncOnPolicyMixin

SelfAsyncA2C = TypeVar("SelfAsyncA2C", bound="AsyncA2C")


class AsyncA2C(AsyncOnPolicyMixin, A2C):
    """
    Advantage Actor Critic (Mnih et al., 2016, https://arxiv.org/abs/1602.01783) as in SB3, with experience from N
    samplers.

    Takes the arguments of SB3's ``A2C`` with the same meaning and order, and those of :class:`AsyncOnPolicyMixin`. Its
    gradient is that of the policy that chose the actions: there is no ratio in it that would correct for a policy lag.
    So ``"sync"`` is its only mode.

    .. code-block:: python

        model = AsyncA2C("MlpPolicy", "HalfCheetah-v4", n_samplers=10, n_steps=64)
        model.learn()
    """

    supported_modes: ClassVar[tuple[str, ...]] = ("sync",)

    def learn(
        self: SelfAsyncA2C,
        total_timesteps: int = 1_000_000,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "AsyncA2C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAsyncA2C:
        """
        Train the policy.

        :param total_timesteps: number of environment steps, over all environments; the last rollout is completed
        :param callback: callback or list of callbacks, called at every step of all environments
        :param log_interval: iterations between two logs
        :param tb_log_name: name of the run for TensorBoard
        :param reset_num_timesteps: whether to count from zero and begin new episodes, rather than to go on
        :param progress_bar: whether to show a progress bar
        :return: the trained model
        """
        arguments: dict[str, Any] = {
            "total_timesteps": total_timesteps,
            "callback": callback,
            "log_interval": log_interval,
            "tb_log_name": tb_log_name,
            "reset_num_timesteps": reset_num_timesteps,
            "progress_bar": progress_bar,
        }
        return super().learn(**arguments)
