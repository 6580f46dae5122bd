"""Replay buffers: making them, and marking where what they hold is not continuous."""

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.off_policy.recorded_steps import RecordedStep
from sb3_walle.transport.chunk import Observations
from sb3_walle.updates.replay_samples import is_sb3s_own


def new_replay_buffer(algorithm: OffPolicyAlgorithm) -> ReplayBuffer:
    """
    :param algorithm: an algorithm
    :return: a buffer as its ``_setup_model()`` builds one, for its present number of environments
    """
    buffer_class = algorithm.replay_buffer_class
    assert buffer_class is not None
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
    """
    :param buffer: a replay buffer
    :return: whether it may look at any info of any step
    """
    if buffer is None:
        return False
    return not is_sb3s_own(buffer) or (isinstance(buffer, HerReplayBuffer) and buffer.copy_info_dict)


def check_n_envs(buffer: ReplayBuffer, n_envs: int) -> None:
    """
    :param buffer: a replay buffer
    :param n_envs: number of environments
    :raises ValueError: if the buffer holds experience of another number of them
    """
    if buffer.n_envs != n_envs:
        raise ValueError(
            f"The replay buffer holds the experience of {buffer.n_envs} environments, one column each, and there are "
            f"{n_envs} now. Train with {buffer.n_envs} environments, or without what is in the buffer."
        )


class Continuity:
    """
    Knows where a step does not follow the one that was stored before it, because a sampler was replaced, another one
    has gone on in its columns, or training was interrupted.
    """

    def __init__(self) -> None:
        self._dones: np.ndarray | None = None
        self._next_observations: Observations | None = None

    def forget(self) -> None:
        """Begin anew, with a replay buffer that was filled elsewhere."""
        self._dones = self._next_observations = None

    def broken(self, step: RecordedStep) -> np.ndarray:
        """
        :param step: the step after the one that was noted
        :return: where an episode was broken off between the two, ``[n_envs]``
        """
        if self._dones is None or self._next_observations is None or len(self._dones) != len(step.dones):
            return np.zeros(len(step.dones), dtype=bool)
        broken = step.episode_starts & ~self._dones
        if not step.continues.all():
            elsewhere = ~_equal(self._next_observations, step.original_observations)
            broken |= ~step.continues & elsewhere & ~self._dones
        return broken

    def note(self, step: RecordedStep) -> None:
        """
        :param step: the step that was stored
        """
        self._dones, self._next_observations = step.dones, step.original_next_observations


def _equal(some: Observations, others: Observations) -> np.ndarray:
    """Whether observations are the same, ``[n_envs]``."""
    if isinstance(some, dict) and isinstance(others, dict):
        return np.logical_and.reduce([_equal(array, others[key]) for key, array in some.items()])
    assert isinstance(some, np.ndarray) and isinstance(others, np.ndarray)
    return np.all((some == others).reshape(len(some), -1), axis=1)
