"""Looking for numbers in a chunk that are not finite, before the learner uses them."""

from typing import Any

import numpy as np

from sb3_walle.errors import NonFiniteError
from sb3_walle.transport.chunk import Chunk


def check_chunk(chunk: Chunk, n_steps: int, first_env: int) -> None:
    """
    :param n_steps: how many of its rows were filled
    :param first_env: number of the sampler's first environment among those of all samplers
    :raises NonFiniteError: if an observation, a reward, an action, a log-probability or a value is NaN or infinite;
        it names the one of the earliest step
    """
    found = [
        (*place, name)
        for name, array in _numbers_of_steps(chunk, n_steps).items()
        if (place := _first_not_finite(array)) is not None
    ]
    if found:
        step, env, value, name = min(found, key=lambda place: place[0])
        raise NonFiniteError(_message(name, value, step, first_env + env))


def check_terminal_observation(observation: Any, step: int, env: int) -> None:
    """
    :param observation: an array, or a dictionary of arrays
    :param step: the step of the chunk that led to it
    :param env: number of the environment among those of all samplers
    :raises NonFiniteError: if a number in it is NaN or infinite
    """
    parts = observation.values() if isinstance(observation, dict) else [observation]
    for part in parts:
        array = np.asarray(part)
        if _is_float(array) and not np.isfinite(array).all():
            value = array[~np.isfinite(array)].flat[0]
            raise NonFiniteError(_message("the last observation of an episode", value, step, env))


def _numbers_of_steps(chunk: Chunk, n_steps: int) -> dict[str, np.ndarray]:
    """The rows that were filled of each array that has one row a step, and one more for what the last step led to."""
    n_rows = {chunk.capacity: n_steps, chunk.capacity + 1: n_steps + 1}
    return {
        name: array[: n_rows[len(array)]]
        for name, array in chunk.arrays.items()
        if _is_float(array) and array.ndim >= 2 and array.shape[1] == chunk.n_envs and len(array) in n_rows
    }


def _first_not_finite(array: np.ndarray) -> tuple[int, int, float] | None:
    finite = np.isfinite(array)
    if finite.all():
        return None
    place = tuple(np.argwhere(~finite)[0])
    return int(place[0]), int(place[1]), float(array[place])


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _message(name: str, value: float, step: int, env: int) -> str:
    return f"{name} of environment {env}: {value} in step {step} of the chunk"
