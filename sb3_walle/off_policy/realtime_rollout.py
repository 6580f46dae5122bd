"""What the learner takes of the steps that plants make, between two trainings."""

from collections.abc import Callable, Mapping

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq

from sb3_walle.collection.realtime import RealtimeCollector
from sb3_walle.off_policy.training_debt import TrainingDebt


def take_steps(
    algorithm: OffPolicyAlgorithm,
    version: int,
    weights: Mapping[str, np.ndarray],
    collector: RealtimeCollector,
    debt: TrainingDebt,
    loop: Callable[[TrainFreq], RolloutReturn],
) -> RolloutReturn:
    """
    Take the steps that plants have made, and wait for further ones only if no training is due.

    :param version: the learner's policy version
    :param weights: what samplers get
    :param debt: the training that is due; the steps are counted there
    :param loop: SB3's loop, which takes as many steps or episodes as it is told to
    :return: what SB3's loop returns, with the gradient steps that are due as its number of steps: with
        ``gradient_steps=-1``, SB3 makes as many
    """
    train_freq = debt.rollout_before_training(collector.n_rollouts_ready())
    if train_freq is None:
        collector.publish(version, weights)
        return RolloutReturn(debt.next_training, 0, continue_training=True)
    n_steps_before = algorithm.num_timesteps
    result = loop(train_freq)
    debt.add_steps((algorithm.num_timesteps - n_steps_before) // algorithm.n_envs, result.n_episodes)
    if algorithm.num_timesteps <= algorithm.learning_starts:
        debt.forget()
    return result._replace(episode_timesteps=debt.next_training)
