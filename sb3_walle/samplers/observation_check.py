"""What environments return as observations: that it fits, and what to say where it does not."""

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.errors import ObservationError
from sb3_walle.transport.chunk import Observations

#: what NumPy raises when a value does not fit into an array, and what has no such key
MISFITS = (LookupError, TypeError, ValueError)


def wrong_observation(observation: Any, which: str, env: int, space: spaces.Space) -> ObservationError:
    """
    :param which: as in "an observation"
    :param env: number of the environment among those of all samplers
    """
    return ObservationError(f"Environment {env} returned {_in_words(observation)} as {which}, but its space is {space}")


def wrong_observations(observations: Any, n_envs: int, first_env: int, space: spaces.Space) -> ObservationError:
    """
    :param observations: what a vectorised environment returned for that many environments
    :param first_env: number of its first environment among those of all samplers
    """
    return ObservationError(
        f"The vectorised environment whose first one is environment {first_env} returned {_in_words(observations)} as "
        f"observations of {n_envs} environments, but the space of each is {space}"
    )


def as_stored(observation: Any, observations: Observations, index: int) -> Any:
    """
    An observation that fits may still have another shape than its space, a number for an array of one, say. The
    learner could not take it.

    :param observations: the batch that it was stored in, ``[B, ...]``
    :return: the same observation if it has the shape of its space, otherwise a copy of what was stored
    """
    if not isinstance(observations, dict):
        return observation if np.shape(observation) == observations.shape[1:] else observations[index].copy()
    if all(np.shape(observation[key]) == array.shape[1:] for key, array in observations.items()):
        return observation
    return {key: array[index].copy() for key, array in observations.items()}


def _in_words(observation: Any) -> str:
    if isinstance(observation, dict):
        return f"a dictionary of {', '.join(f'{key!r}: {_in_words(value)}' for key, value in observation.items())}"
    if isinstance(observation, np.ndarray):
        return f"an array of shape {observation.shape} and type {observation.dtype}"
    if observation is None:
        return "None"
    return f"an object of {type(observation)}"
