"""Storing steps that samplers made in a replay buffer, as SB3 stores its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.off_policy.cuts import cut_off, make_room
from sb3_walle.off_policy.recorded_steps import RecordedStep
from sb3_walle.sb3_private import set_last_observations, without_vec_normalize
from sb3_walle.transport.chunk import Observations


class ReplayStorage:
    """
    Stores one step after the other, and marks where a step does not follow the one before it, because a sampler was
    replaced, another one continues its columns, or training was interrupted.
    """

    def __init__(self) -> None:
        self._dones: np.ndarray | None = None
        self._next_observations: Observations | None = None

    def forget(self) -> None:
        """Continue with a replay buffer that was filled elsewhere."""
        self._dones = self._next_observations = None

    def store(
        self,
        algorithm: OffPolicyAlgorithm,
        step: RecordedStep,
        replay_buffer: ReplayBuffer,
        infos: list[dict[str, Any]],
        sb3_store: Callable[[np.ndarray | dict[str, np.ndarray], np.ndarray, list[dict[str, Any]]], None],
    ) -> None:
        """
        :param infos: the infos of the step
        :param sb3_store: SB3's way to store a transition, of what the step led to, its rewards and its infos
        """
        broken = self._broken(step)
        if broken.any():
            cut_off(replay_buffer, broken)
        make_room(replay_buffer)
        originals = step.original_next_observations
        # The samplers have recorded the original observations and rewards. VecNormalize could only give them back from
        # the normalised ones, with statistics that have changed since.
        with without_vec_normalize(algorithm):
            set_last_observations(algorithm, step.original_observations)
            sb3_store(originals, step.original_rewards, step.with_original_terminal_observations(infos))
        set_last_observations(algorithm, step.next_observations, originals)
        self._dones, self._next_observations = step.dones, originals

    def _broken(self, step: RecordedStep) -> np.ndarray:
        """Where an episode was broken off between the step that was stored last and this one, ``[n_envs]``."""
        if self._dones is None or self._next_observations is None or len(self._dones) != len(step.dones):
            return np.zeros(len(step.dones), dtype=bool)
        broken = step.episode_starts & ~self._dones
        if not step.continues.all():
            elsewhere = ~_equal(self._next_observations, step.original_observations)
            broken |= ~step.continues & elsewhere & ~self._dones
        return broken


def _equal(some: Observations, others: Observations) -> np.ndarray:
    """Whether observations are the same, ``[n_envs]``."""
    if isinstance(some, dict):
        return np.logical_and.reduce([_equal(array, others[key]) for key, array in some.items()])
    return np.all((some == others).reshape(len(some), -1), axis=1)
