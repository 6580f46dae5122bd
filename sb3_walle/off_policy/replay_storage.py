"""Storing steps that samplers made in a replay buffer, as SB3 stores its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.off_policy.continuity import Continuity
from sb3_walle.off_policy.cuts import cut_off, make_room
from sb3_walle.off_policy.recorded_steps import RecordedStep
from sb3_walle.sb3_private import set_last_observations, without_vec_normalize


class ReplayStorage:
    """Stores one step after the other, and marks where episodes are broken off in between."""

    def __init__(self) -> None:
        self._continuity = Continuity()

    def forget(self) -> None:
        """Continue with a replay buffer that was filled elsewhere."""
        self._continuity.forget()

    def store(
        self,
        algorithm: OffPolicyAlgorithm,
        step: RecordedStep,
        replay_buffer: ReplayBuffer,
        infos: list[dict[str, Any]],
        sb3_store: Callable[[np.ndarray | dict[str, np.ndarray], np.ndarray, list[dict[str, Any]]], None],
    ) -> None:
        """
        :param replay_buffer: where to store it
        :param infos: the infos of the step
        :param sb3_store: SB3's way to store a transition, of what the step led to, its rewards and its infos
        """
        broken = self._continuity.broken(step)
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
        self._continuity.note(step)
