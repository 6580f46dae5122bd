"""What a sampler asks of a vectorised environment, whatever its kind. A *row* is one of its environments."""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_walle.transport.chunk import Observations


class VectorStep(Protocol):
    """What one step of all rows led to. B is their number."""

    #: ``[B, ...]``; the vectorised environment may use these arrays again
    observations: Observations
    #: ``[B]``
    rewards: np.ndarray
    #: whether an episode ended, ``[B]``
    dones: np.ndarray
    #: rows whose infos tell of an episode, whether it ended with this step or not, ``[B]``; ``None`` if there are none
    tells_of_episode: np.ndarray | None
    #: whether the rows whose episode ended show the first observation of the next one already
    has_reset: bool

    def info(self, row: int) -> dict[str, Any]:
        """:return: what the step says of one row, in a new dictionary"""

    def is_truncated(self, row: int) -> bool:
        """:return: whether an episode that ended was cut off, as by a time limit"""

    def final_observation(self, row: int) -> Any:
        """:return: the last observation of an episode that ended, if the row has begun the next one"""

    def reset_info(self, row: int) -> dict[str, Any]:
        """:return: what the beginning of the next episode says, if the row has begun it"""


class FirstObservations(Protocol):
    """The first observations of new episodes."""

    #: one for each row that has begun one, in their order
    observations: Observations

    def info(self, row: int) -> dict[str, Any]:
        """:return: what the reset says of one row"""


class VectorAdapter(Protocol):
    """One kind of vectorised environment."""

    n_envs: int
    #: of one environment
    observation_space: spaces.Space
    action_space: spaces.Space
    metadata: dict[str, Any]
    #: whether rows whose episode has ended begin the next one in the next step, in which other rows step
    resets_late: bool
    #: the single environments, as far as this process has them
    single_envs: list[gym.Env]

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> FirstObservations:
        """Begin new episodes in all rows."""

    def reset_rows(self, rows: np.ndarray) -> FirstObservations:
        """
        Begin new episodes in some rows, unless the adapter resets late.

        :param rows: their numbers, ascending
        """

    def step(self, actions: np.ndarray) -> VectorStep:
        """Step all rows."""

    def render(self) -> Sequence[Any]:
        """:return: one frame of each row"""

    def get_attr(self, name: str, rows: Sequence[int]) -> list[Any]:
        """
        :return: an attribute, of each row
        :raises AttributeError: if they have none of this name
        """

    def has_attr(self, name: str, rows: Sequence[int]) -> list[bool]:
        """:return: whether each row has an attribute"""

    def set_attr(self, name: str, value: Any, rows: Sequence[int]) -> None:
        """:raises AttributeError: if it cannot be set in these rows alone"""

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        """
        :return: what a method returns, for each row
        :raises AttributeError: if there is none of this name, or it cannot be called in these rows alone
        """

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], rows: Sequence[int]) -> list[bool]:
        """:return: whether each row is wrapped in a class"""

    def close(self) -> None:
        """Close the environments."""
