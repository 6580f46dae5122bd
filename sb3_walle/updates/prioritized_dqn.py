"""DQN's update with prioritised replay, made eagerly."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.dqn import DQN

from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from sb3_walle.sb3_private import add_updates, n_updates, progress_remaining, update_learning_rate, vec_normalize_of
from sb3_walle.updates.dqn_update import weighted_loss
from sb3_walle.updates.off_policy_update import ReplayRows


def train_prioritized(algorithm: DQN, buffer: PrioritizedReplayBuffer, gradient_steps: int, batch_size: int) -> None:
    """
    What SB3's ``DQN.train()`` does, with the samples' weights in the loss, and their errors back in the buffer (Schaul
    et al., 2016, https://arxiv.org/abs/1511.05952, algorithm 1).

    :param algorithm: the algorithm
    :param buffer: its replay buffer
    :param gradient_steps: number of gradient steps
    :param batch_size: samples of a minibatch
    """
    policy: Any = algorithm.policy
    policy.set_training_mode(True)
    update_learning_rate(algorithm, policy.optimizer)
    losses, gamma = [], th.tensor([algorithm.gamma], device=policy.device)
    for _ in range(gradient_steps):
        samples = buffer.sample_weighted(batch_size, vec_normalize_of(algorithm), progress_remaining(algorithm))
        discounts = gamma if samples.discounts is None else samples.discounts
        loss, errors = weighted_loss(policy, ReplayRows(*samples[:5], discounts, samples.weights))
        losses.append(loss.item())
        policy.optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(policy.parameters(), algorithm.max_grad_norm)
        policy.optimizer.step()
        buffer.update_priorities(samples.indices, errors)
    add_updates(algorithm, gradient_steps)
    algorithm.logger.record("train/n_updates", n_updates(algorithm), exclude="tensorboard")
    algorithm.logger.record("train/loss", np.mean(losses))
