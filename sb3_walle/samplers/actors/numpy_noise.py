"""
SB3's action noise in NumPy, for all environments of a sampler at once, and with a random stream of its own.

B is the number of environments of the sampler.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt

import numpy as np


class Noise(ABC):
    """Noise that is added to actions."""

    def reset(self, envs: np.ndarray) -> None:  # noqa: B027 - most noise has no memory
        """
        An episode begins.

        :param envs: in which environments, ``[B]``
        """

    @abstractmethod
    def next(self) -> np.ndarray:
        """:return: the noise of the next step, ``[action_dim, B]``"""


@dataclass(frozen=True)
class NormalNoiseSpec:
    """
    How to build SB3's ``NormalActionNoise``.

    :param mean: mean of each element of an action
    :param sigma: its standard deviation
    """

    mean: tuple[float, ...]
    sigma: tuple[float, ...]

    def build(self, n_envs: int, random: np.random.Generator) -> Noise:
        """
        :param n_envs: environments of the sampler, B
        :param random: where random numbers come from
        :return: the noise
        """
        return NormalNoise(self, n_envs, random)


class NormalNoise(Noise):
    """
    Independent at every step.

    :param spec: its parameters
    :param n_envs: environments of the sampler, B
    :param random: where random numbers come from
    """

    def __init__(self, spec: NormalNoiseSpec, n_envs: int, random: np.random.Generator) -> None:
        self._mean, self._sigma = _column(spec.mean), _column(spec.sigma)
        self._shape, self._random = (len(spec.mean), n_envs), random

    def next(self) -> np.ndarray:
        """:return: the noise of the next step, ``[action_dim, B]``"""
        return self._mean + self._sigma * self._random.standard_normal(self._shape, dtype=np.float32)


@dataclass(frozen=True)
class OrnsteinUhlenbeckNoiseSpec:
    """
    How to build SB3's ``OrnsteinUhlenbeckActionNoise``.

    :param mean: what each element of the noise returns to
    :param sigma: its scale
    :param theta: how fast it returns
    :param dt: time of a step
    :param initial: where each element begins with an episode
    """

    mean: tuple[float, ...]
    sigma: tuple[float, ...]
    theta: float
    dt: float
    initial: tuple[float, ...]

    def build(self, n_envs: int, random: np.random.Generator) -> Noise:
        """
        :param n_envs: environments of the sampler, B
        :param random: where random numbers come from
        :return: the noise
        """
        return OrnsteinUhlenbeckNoise(self, n_envs, random)


class OrnsteinUhlenbeckNoise(Noise):
    """
    A random walk that returns to its mean (Uhlenbeck & Ornstein, 1930, "On the theory of the Brownian motion"), as DDPG
    was introduced with.

    :param spec: its parameters
    :param n_envs: environments of the sampler, B
    :param random: where random numbers come from
    """

    def __init__(self, spec: OrnsteinUhlenbeckNoiseSpec, n_envs: int, random: np.random.Generator) -> None:
        self._mean, self._initial = _column(spec.mean), _column(spec.initial)
        self._pull = np.float32(spec.theta * spec.dt)
        self._scale = _column(spec.sigma) * np.float32(sqrt(spec.dt))
        self._noise = np.repeat(self._initial, n_envs, axis=1)
        self._random = random

    def reset(self, envs: np.ndarray) -> None:
        """
        An episode begins.

        :param envs: in which environments, ``[B]``
        """
        self._noise[:, envs] = self._initial

    def next(self) -> np.ndarray:
        """:return: the noise of the next step, ``[action_dim, B]``"""
        normal = self._random.standard_normal(self._noise.shape, dtype=np.float32)
        self._noise = self._noise + self._pull * (self._mean - self._noise) + self._scale * normal
        return self._noise


def _column(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, np.newaxis]
