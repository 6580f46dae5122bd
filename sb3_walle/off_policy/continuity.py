"""Where what a replay buffer gets does not continue what it got before."""

import numpy as np

from sb3_walle.off_policy.recorded_steps import RecordedStep
from sb3_walle.transport.chunk import Observations


class Continuity:
    """
    Knows where a step does not follow the one that was stored before it, because a sampler was replaced, another one
    continues its columns, or training was interrupted.
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
    if isinstance(some, dict):
        return np.logical_and.reduce([_equal(array, others[key]) for key, array in some.items()])
    return np.all((some == others).reshape(len(some), -1), axis=1)
