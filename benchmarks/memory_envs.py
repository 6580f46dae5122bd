"""Environments that need memory. Samplers import this file: it needs no torch."""

from typing import Any

import gymnasium as gym
import numpy as np

#: for ``gym.make()`` and for ``python -m benchmarks.returns``
POLE_WITHOUT_VELOCITIES = "benchmarks.memory_envs:CartPoleWithoutVelocities-v1"


class WithoutVelocities(gym.ObservationWrapper):
    """CartPole whose observations have zeros in the place of velocities, as rl_zoo3's ``MaskVelocityWrapper``."""

    VELOCITIES = (1, 3)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        shown = observation.copy()
        shown[[self.VELOCITIES]] = 0.0
        return shown


def make_pole(**kwargs: Any) -> gym.Env:
    """:return: CartPole without velocities, without its time limit"""
    return WithoutVelocities(gym.make("CartPole-v1", **kwargs).unwrapped)


# Samplers have the registrations of the process that they come from.
if "CartPoleWithoutVelocities-v1" not in gym.registry:
    gym.register("CartPoleWithoutVelocities-v1", make_pole, max_episode_steps=500)
