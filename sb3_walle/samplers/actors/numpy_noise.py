"""SB3's action noise in NumPy, for all environments of a sampler at once, and with a random stream of its own."""

from dataclasses import dataclass
from math import sqrt

import numpy as np


@dataclass(frozen=True)
class NoiseSpec:
    """
    How to build SB3's ``OrnsteinUhlenbeckActionNoise``, or, with ``theta`` and ``dt`` of 1, its ``NormalActionNoise``.
    The tuples have a number for each element of an action.

    :param mean: what the noise returns to
    :param sigma: its scale
    :param initial: where it begins with an episode
    :param theta: how fast it returns
    :param dt: time of a step
    """

    mean: tuple[float, ...]
    sigma: tuple[float, ...]
    initial: tuple[float, ...]
    theta: float = 1.0
    dt: float = 1.0


class Noise:
    """
    A random walk that returns to its mean (Uhlenbeck & Ornstein, 1930, "On the theory of the Brownian motion"), as DDPG
    was introduced with. Where it returns within one step, the steps are independent.

    :param n_envs: environments of the sampler, B
    :param random: where random numbers come from
    """

    def __init__(self, spec: NoiseSpec, n_envs: int, random: np.random.Generator) -> None:
        pull = spec.theta * spec.dt
        self._kept = np.float32(1.0 - pull)
        self._added = _column(spec.mean) * np.float32(pull)
        self._scale = _column(spec.sigma) * np.float32(sqrt(spec.dt))
        self._initial = _column(spec.initial)
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
        noise = self._added + self._scale * self._random.standard_normal(self._noise.shape, dtype=np.float32)
        if self._kept:
            noise += self._kept * self._noise
        self._noise = noise
        return noise


def _column(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, np.newaxis]
