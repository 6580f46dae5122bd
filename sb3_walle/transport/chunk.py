"""What one sampler collected with one policy version: the arrays of an experience queue's slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from gymnasium import spaces

from sb3_walle.transport.layout import Field, Layout

Observations: TypeAlias = np.ndarray | dict[str, np.ndarray]

OBSERVATIONS = "observations"


def observation_fields(space: spaces.Space, leading: tuple[int, ...]) -> tuple[Field, ...]:
    """
    :param space: an observation space that SB3 supports; a ``Dict`` gives one array a key
    :param leading: leading axes of every array
    :return: the arrays that hold observations of the space, in its own data types
    :raises NotImplementedError: if the space has no fixed shape, or is nested
    """
    if isinstance(space, spaces.Dict):
        named = {f"{OBSERVATIONS}/{key}": subspace for key, subspace in space.spaces.items()}
    else:
        named = {OBSERVATIONS: space}
    fields = []
    for name, subspace in named.items():
        if subspace.shape is None or subspace.dtype is None or isinstance(subspace, spaces.Dict | spaces.Tuple):
            raise NotImplementedError(
                f"{space} observation space is not supported: '{name}' has no fixed shape and dtype"
            )
        fields.append(Field(name, (*leading, *subspace.shape), np.dtype(subspace.dtype).str))
    return tuple(fields)


def chunk_layout(
    n_steps: int,
    n_envs: int,
    observation_space: spaces.Space,
    further_fields: tuple[Field, ...],
) -> Layout:
    """
    :param n_steps: most steps that a chunk can hold, T
    :param n_envs: environments of a sampler, B
    :param observation_space: what the policy observes
    :param further_fields: what actors and layers record (actions, log-probabilities, ...)
    :return: the layout of a chunk
    """
    return Layout(
        (
            *observation_fields(observation_space, (n_steps + 1, n_envs)),
            Field("rewards", (n_steps, n_envs), "<f4"),
            Field("episode_starts", (n_steps + 1, n_envs), "|b1"),
            *further_fields,
        )
    )


def named(arrays: Mapping[str, np.ndarray], name: str) -> Observations:
    """:return: the array of that name, or the dictionary of arrays, whose keys stand as ``name/key``"""
    if name in arrays:
        return arrays[name]
    prefix = f"{name}/"
    return {other.removeprefix(prefix): array for other, array in arrays.items() if other.startswith(prefix)}


@dataclass(frozen=True)
class Seal:
    """
    What a sampler writes in front of a finished chunk.

    :param ticket: number of the ticket that the chunk answers
    :param version: policy version that chose the actions
    :param n_steps: how many steps were filled
    """

    ticket: int
    version: int
    n_steps: int

    def words(self) -> tuple[int, int, int, int]:
        """The seal as it lies in memory; the last word makes zeroed memory an invalid seal."""
        return self.ticket, self.version, self.n_steps, ~(self.ticket ^ self.version ^ self.n_steps)


@dataclass
class Chunk:
    """
    The arrays of a chunk. T is the number of steps that it can hold, B the environments of its sampler.

    An array ``[T, B, ...]`` or ``[T + 1, B, ...]`` has a row for each step, and a rollout gets it under the same
    name. Any other array is about the chunk as a whole, and has one axis at most.

    Row ``t + 1`` of ``observations`` and ``episode_starts`` is what step ``t`` led to; where an episode ended, that is
    the first observation of the next one. The last observation of the ended episode is in the step's info.

    :param arrays: all arrays by name, including those that the actor and the layers around environments record
    """

    arrays: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        #: what the policy saw, ``[T + 1, B, ...]``; a dictionary of such arrays for a ``Dict`` space
        self.observations = named(self.arrays, OBSERVATIONS)
        #: the rewards, normalised if they are inside of a ``VecNormalize``, ``[T, B]``
        self.rewards = self.arrays["rewards"]
        #: whether the observation of the same row is the first of an episode, ``[T + 1, B]``
        self.episode_starts = self.arrays["episode_starts"]
        #: the actions as the policy gave them, before clipping or rescaling, ``[T, B, ...]``
        self.actions = self.arrays["actions"]
        #: how many of the steps were filled; the rows after that are undefined
        self.n_steps = self.capacity

    @property
    def capacity(self) -> int:
        """The number of steps that the chunk can hold, T."""
        return len(self.rewards)

    @property
    def n_envs(self) -> int:
        """The number of environments of its sampler, B."""
        return self.rewards.shape[1]

    @property
    def dones(self) -> np.ndarray:
        """Whether each step ended an episode, ``[T, B]``."""
        return self.episode_starts[1:]

    def rows_of_steps(self) -> dict[str, np.ndarray]:
        """:return: the arrays with a row for each step, by name"""
        shapes = ((self.capacity, self.n_envs), (self.capacity + 1, self.n_envs))
        return {name: array for name, array in self.arrays.items() if array.shape[:2] in shapes}

    def copied(self) -> "Chunk":
        """:return: the same in memory of its own"""
        copied = Chunk({name: array.copy() for name, array in self.arrays.items()})
        copied.n_steps = self.n_steps
        return copied


def row(observations: Observations, step: int) -> Observations:
    """:return: the observations of one step, ``[B, ...]``, or a dictionary of such arrays; a view, not a copy"""
    if isinstance(observations, dict):
        return {key: array[step] for key, array in observations.items()}
    return observations[step]


def rows(observations: Observations, n_rows: int) -> list[Observations]:
    """:return: :func:`row` of each of the first steps, at once, which takes much less than one at a time"""
    if isinstance(observations, dict):
        columns = [array[:n_rows] for array in observations.values()]
        return [dict(zip(observations, step, strict=True)) for step in zip(*columns, strict=True)]
    return list(observations[:n_rows])


def between(observations: Observations, steps: range) -> Observations:
    """:return: the observations of consecutive steps, ``[len(steps), B, ...]``; views, not copies"""
    if isinstance(observations, dict):
        return {key: array[steps.start : steps.stop] for key, array in observations.items()}
    return observations[steps.start : steps.stop]
