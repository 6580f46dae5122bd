"""Replay buffers of SB3: which one an algorithm has, how to make it, and what it needs."""

from typing import Any

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from sb3_walle.updates.replay_samples import is_known


def buffer_of(algorithm: OffPolicyAlgorithm) -> ReplayBuffer | None:
    """:return: its replay buffer; ``None`` also after ``del model.replay_buffer``, which frees memory"""
    return getattr(algorithm, "replay_buffer", None)


def new_replay_buffer(algorithm: OffPolicyAlgorithm) -> ReplayBuffer:
    """:return: a buffer as its ``_setup_model()`` builds one, for its present number of environments"""
    buffer_class = algorithm.replay_buffer_class
    if buffer_class is None:
        raise ValueError(f"{type(algorithm).__name__} has no replay_buffer_class to make a replay buffer of.")
    further: dict[str, Any] = dict(algorithm.replay_buffer_kwargs)
    if issubclass(buffer_class, HerReplayBuffer):
        further["env"] = algorithm.env
    return buffer_class(
        algorithm.buffer_size,
        algorithm.observation_space,
        algorithm.action_space,
        device=algorithm.device,
        n_envs=algorithm.n_envs,
        optimize_memory_usage=algorithm.optimize_memory_usage,
        **further,
    )


def wants_all_infos(buffer: ReplayBuffer | None) -> bool:
    """:return: whether the buffer may look at any info of any step"""
    if buffer is None:
        return False
    return not is_known(buffer) or (isinstance(buffer, HerReplayBuffer) and buffer.copy_info_dict)


def check_weights(buffer: ReplayBuffer | None, algorithm: str, learns_from_weights: bool) -> None:
    """
    :param algorithm: name of the algorithm
    :param learns_from_weights: whether its update weights losses and returns errors to the buffer
    :raises ValueError: if the buffer takes an algorithm that does
    """
    if isinstance(buffer, PrioritizedReplayBuffer) and not learns_from_weights:
        raise ValueError(
            f"{algorithm} cannot learn from a PrioritizedReplayBuffer: it neither weights its losses nor returns "
            "errors to the buffer. Use AsyncDQN, or another replay_buffer_class."
        )


def check_n_envs(buffer: ReplayBuffer, n_envs: int) -> None:
    """:raises ValueError: if the buffer holds the experience of another number of environments"""
    if buffer.n_envs != n_envs:
        raise ValueError(
            f"The replay buffer holds the experience of {buffer.n_envs} environments, one column each, and there are "
            f"{n_envs} now. Train with {buffer.n_envs} environments, or without what is in the buffer."
        )
