"""Environments that need memory. Samplers import this file: it needs no torch."""

from typing import Any

import gymnasium as gym
import numpy as np

#: for ``gym.make()`` and for ``python -m benchmarks.returns``
POLE_WITHOUT_VELOCITIES = "benchmarks.memory_envs:CartPoleWithoutVelocities-v1"
PENDULUM_WITHOUT_VELOCITY = "benchmarks.memory_envs:PendulumWithoutVelocity-v1"


class WithoutVelocities(gym.ObservationWrapper):
    """
    Shows zeros in the place of velocities, as rl_zoo3's ``MaskVelocityWrapper``.

    :param velocities: which elements of an observation are velocities
    """

    def __init__(self, env: gym.Env, velocities: tuple[int, ...]) -> None:
        super().__init__(env)
        self._velocities = list(velocities)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        shown = observation.copy()
        shown[self._velocities] = 0.0
        return shown


def make_pole(**kwargs: Any) -> gym.Env:
    """:return: CartPole without velocities, without its time limit"""
    return WithoutVelocities(gym.make("CartPole-v1", **kwargs).unwrapped, (1, 3))


def make_pendulum(**kwargs: Any) -> gym.Env:
    """:return: Pendulum without its velocity, without its time limit"""
    return WithoutVelocities(gym.make("Pendulum-v1", **kwargs).unwrapped, (2,))


# Samplers have the registrations of the process that they come from.
if "CartPoleWithoutVelocities-v1" not in gym.registry:
    gym.register("CartPoleWithoutVelocities-v1", make_pole, max_episode_steps=500)
    gym.register("PendulumWithoutVelocity-v1", make_pendulum, max_episode_steps=200)
