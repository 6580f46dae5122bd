"""Observations to the features of a policy, as SB3's ``preprocess_obs`` and its flattening extractors do, in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np

from sb3_walle.transport.chunk import Observations

#: Writes the features of one step's observations to where the network reads them.
Reader: TypeAlias = Callable[[Any], None]


class Input(Protocol):
    """What becomes of one observation: of the only one, or of one key of a dictionary."""

    @property
    def key(self) -> str | None:
        """The observation's key in a dictionary; None if there is only one observation."""

    @property
    def size(self) -> int:
        """How many features the observation gives."""

    def reader(self, features: np.ndarray) -> Reader:
        """
        :param features: where the features go, ``[size, B]``
        :return: takes an observation, ``[B, ...]``
        """


@dataclass(frozen=True)
class FlatInput:
    """
    Numbers (``Box``, ``MultiBinary``), flattened and cast to float32.

    :param key: the observation's key in a dictionary; None if there is only one observation
    :param shape: shape of the observation of one environment
    :param is_image: whether the numbers are divided by 255
    """

    key: str | None
    shape: tuple[int, ...]
    is_image: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)

    def reader(self, features: np.ndarray) -> Reader:
        # Seen in the shape of the observation, so that flattening takes no call.
        target = features.T.reshape(-1, *self.shape)

        def copy(observation: np.ndarray) -> None:
            target[...] = observation

        def copy_image(observation: np.ndarray) -> None:
            np.divide(observation, 255.0, out=target, dtype=np.float32, casting="unsafe")

        return copy_image if self.is_image else copy


@dataclass(frozen=True)
class OneHotInput:
    """
    Categories (``Discrete``, ``MultiDiscrete``), one-hot encoded.

    :param key: the observation's key in a dictionary; None if there is only one observation
    :param shape: shape of the observation of one environment, ``()`` or ``(len(sizes),)``
    :param sizes: number of categories of each entry
    """

    key: str | None
    shape: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def reader(self, features: np.ndarray) -> Reader:
        n_envs = features.shape[1]
        offsets = np.cumsum((0, *self.sizes[:-1])).reshape(self.shape)
        envs = np.arange(n_envs).reshape(n_envs, *(1 for _ in self.shape))
        hot = np.empty((n_envs, *self.shape), dtype=np.intp)

        def encode(observation: np.ndarray) -> None:
            features.fill(0.0)
            np.add(observation, offsets, out=hot, casting="unsafe")
            features[hot, envs] = 1.0

        return encode


def read_inputs(inputs: tuple[Input, ...], features: np.ndarray) -> Callable[[Observations], None]:
    """
    Prepare to read whole observations.

    :param inputs: in the order in which their features are concatenated
    :param features: where the features of all inputs go, ``[features, B]``
    :return: takes the observations of one step, ``[B, ...]`` or a dictionary of such arrays
    """
    ends = np.cumsum([item.size for item in inputs])
    readers = [(item.key, item.reader(features[end - item.size : end])) for item, end in zip(inputs, ends, strict=True)]
    key, read_only_one = readers[0]
    if key is None:
        return read_only_one

    def read_dictionary(observations: Observations) -> None:
        for key, read in readers:
            read(observations[key])  # type: ignore[index]

    return read_dictionary
