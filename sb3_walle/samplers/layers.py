"""What the step loop sees of a sampler's environments: one layer upon another, each with the same few methods."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.errors import UnsupportedSpaceError
from sb3_walle.transport.chunk import Observations
from sb3_walle.transport.pulse import Pulse

#: By this convention a method sets something that lasts. Others are not called again: they may do anything.
SETTER_PREFIX = "set_"
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


class InnermostEnvs(EnvLayer, Protocol):
    """The environments of a sampler themselves, around which all layers are."""

    #: Gymnasium's metadata
    metadata: dict[str, Any]
    #: the single environments, as far as this process has them
    envs: list[gym.Env]
    #: process and address of each environment, which no two have in common
    identities: list[tuple[int, ...]]
    #: names of the monitor files that each environment writes
    monitor_files: list[tuple[str, ...]]
    #: number of the first environment among those of all samplers
    first_env: int
    #: told whenever an environment begins a step or a reset; ``None`` where no step is timed
    pulse: Pulse | None
    #: what the last reset of each environment returned together with the observation
    reset_infos: list[dict[str, Any]]
    #: whether an environment whose episode has ended begins the next one in the next step, in which others step
    resets_late: bool
    #: whether each step tells the info of every environment; otherwise those of episodes that end are enough
    tells_every_info: bool

    def close(self) -> None:
        """Close the environments."""

    def render(self, indices: Sequence[int]) -> list[Any]:
        """:return: one frame of each of the environments"""

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """:return: an attribute of each environment, or of any wrapper around it"""

    def has_attr(self, name: str, indices: Sequence[int]) -> list[bool]:
        """:return: whether each environment, or any wrapper around it, has an attribute"""

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        """Set an attribute of each environment."""

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], indices: Sequence[int]) -> list[Any]:
        """:return: what a method of each environment, or of any wrapper around it, returns"""

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Sequence[int]) -> list[bool]:
        """:return: whether each environment is wrapped in a class"""


def empty_observations(space: spaces.Space, n_envs: int) -> Observations:
    """
    :return: zeros for a batch of observations, ``[B, ...]``, or a dictionary of such arrays
    :raises UnsupportedSpaceError: if observations are no arrays
    """

    def empty(part: spaces.Space) -> np.ndarray:
        if part.shape is None:
            raise UnsupportedSpaceError(space)
        return np.zeros((n_envs, *part.shape), dtype=part.dtype)

    if isinstance(space, spaces.Dict):
        return {key: empty(part) for key, part in space.spaces.items()}
    return empty(space)


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
