"""DQN with asynchronous samplers."""

from stable_baselines3.dqn import DQN

from sb3_walle.off_policy import AsyncOffPolicyMixin
from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from sb3_walle.updates.dqn_update import DQNUpdate
from sb3_walle.updates.prioritized_dqn import train_prioritized


class AsyncDQN(AsyncOffPolicyMixin, DQN):
    """
    Deep Q-Network (Mnih et al., 2013, https://arxiv.org/abs/1312.5602) as in SB3, with
    experience from N samplers.

    Takes the arguments of SB3's ``DQN``, and those of :class:`AsyncOffPolicyMixin`. With
    ``replay_buffer_class=PrioritizedReplayBuffer``, its update is that of prioritised replay.

    .. code-block:: python

        model = AsyncDQN("MlpPolicy", "CartPole-v1", n_samplers=10)
        model.learn()
    """

    has_noise_ladder = True
    learns_from_weights = True
    update_class = DQNUpdate

    def _train_as_sb3(self, gradient_steps: int, batch_size: int) -> None:
        # The update of a class in between samples in its own way.
        if isinstance(self.replay_buffer, PrioritizedReplayBuffer) and self._trains_as_sb3():
            train_prioritized(self, self.replay_buffer, gradient_steps, batch_size)
        else:
            super()._train_as_sb3(gradient_steps, batch_size)
