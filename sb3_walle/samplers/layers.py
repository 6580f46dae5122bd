"""What the step loop sees of a sampler's environments: one layer upon another, each with the same few methods."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from gymnasium import spaces

from sb3_walle.transport.chunk import Observations

#: Called with the index of an environment, its info and whether its episode ended.
OnInfo: TypeAlias = Callable[[int, dict[str, Any], bool], None]


class EnvLayer(Protocol):
    """
    B environments that reset themselves at the end of an episode, or something around them that changes what they show.
    """

    n_envs: int
    observation_space: spaces.Space
    action_space: spaces.Space
    #: what they show at present, ``[B, ...]``; not updated by :meth:`step`, but by :meth:`keep`
    observations: Observations

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        """
        Start a new episode in every environment.

        :param seeds: one seed for each environment, ``None`` to continue its random stream
        :param options: Gymnasium's reset options for each environment
        """

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        """
        Step every environment once. Those whose episode ends are reset.

        :param actions: one action for each environment
        :param observations: receives what the environments show afterwards, ``[B, ...]``
        :param rewards: receives the rewards, ``[B]``
        :param dones: receives whether the step ended an episode, ``[B]``
        :param on_info: called with the index of each environment, its info and whether its episode ended; at that point
            the info has ``"TimeLimit.truncated"`` and, at the end of an episode, ``"terminal_observation"``. To
            keep any of it, copy it: environments may use their observations and infos again
        :raises ObservationError: if an environment returns what does not fit its observation space
        """

    def keep(self, observations: Observations) -> None:
        """Note where the environments are: the ``[B, ...]`` observations that the last step led to."""


def store(observations: Observations, index: int, observation: Any) -> None:
    """
    Copy one environment's observation into a batch.

    :param observations: the batch, ``[B, ...]``, or a dictionary of such arrays
    :raises KeyError: if it lacks one of the keys
    :raises ValueError: if its shape does not fit
    :raises TypeError: if it is no number or array, or ``None``, which NumPy would store as NaN
    """
    if isinstance(observations, dict):
        for key, array in observations.items():
            part = observation[key]
            if part is None:
                raise TypeError(f"{key!r} is None")
            array[index] = part
    elif observation is None:
        raise TypeError("The observation is None")
    else:
        observations[index] = observation


def copy_observations(source: Observations, target: Observations) -> None:
    """Copy a batch of observations over another one of the same kind."""
    if isinstance(target, dict):
        for key, array in target.items():
            array[...] = source[key]
    else:
        target[...] = source
