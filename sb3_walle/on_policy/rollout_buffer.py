"""Building and filling SB3's rollout buffer."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.wrappers import dtypes_of_parts
from sb3_walle.samplers.actors.protocol import LOG_PROBS
from sb3_walle.transport.chunk import row


def new_rollout_buffer(algorithm: OnPolicyAlgorithm) -> RolloutBuffer:
    """:return: a buffer as its ``_setup_model()`` builds one, for its present number of environments"""
    buffer_class = algorithm.rollout_buffer_class
    if buffer_class is None:
        raise ValueError(f"{type(algorithm).__name__} has no rollout_buffer_class to make a rollout buffer of.")
    return buffer_class(
        algorithm.n_steps,
        algorithm.observation_space,
        algorithm.action_space,
        device=algorithm.device,
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        n_envs=algorithm.n_envs,
        **algorithm.rollout_buffer_kwargs,
    )


def is_sb3s_own(buffer: RolloutBuffer) -> bool:
    """:return: whether the buffer does what SB3's do, apart from holding more: one of SB3, of sb3-contrib or of ours"""
    return type(buffer).__module__.split(".")[0] in ("stable_baselines3", "sb3_contrib", "sb3_walle")


def keep_fractions(buffer: RolloutBuffer, observation_space: spaces.Space) -> None:
    """
    Have a buffer hold observations that are fractions although their space is one of integers. That is so for integers
    that ``VecNormalize`` has normalised, which SB3's buffers cut down to whole numbers again.

    :param buffer: the buffer, before its reset
    :param observation_space: what the policy observes, with the data types that it comes in
    """
    held, observed = dtypes_of_parts(buffer.observation_space), dtypes_of_parts(observation_space)
    if any(np.issubdtype(held[part], np.integer) and np.issubdtype(observed[part], np.floating) for part in held):
        buffer.observation_space = observation_space


def fit_size(buffer: RolloutBuffer, rollout: Rollout) -> None:
    """Have an empty buffer hold as many steps as a rollout has, which differs where it consists of whole episodes."""
    if (buffer.buffer_size, buffer.n_envs) != (rollout.n_steps, rollout.n_envs):
        buffer.buffer_size, buffer.n_envs = rollout.n_steps, rollout.n_envs
        buffer.reset()


def add_rows(
    buffer: RolloutBuffer,
    rollout: Rollout,
    rows: range,
    rewards: np.ndarray,
    episode_starts: np.ndarray,
    values: np.ndarray,
    further: Mapping[str, np.ndarray] | None = None,
    arguments: Callable[[int], dict[str, Any]] = lambda step: {},
) -> None:
    """
    Add steps of a rollout to a buffer.

    :param rows: which rows of it, T
    :param rewards: rewards to learn from, ``[T, n_envs]``
    :param episode_starts: where advantage estimates must not look past, ``[T, n_envs]``
    :param values: values of the observations, ``[T, n_envs]``
    :param further: what the buffer holds beyond SB3's, by the names of its attributes, ``[T, ...]``
    :param arguments: the same as what its ``add()`` takes by name, from a row of the rollout
    """
    if not is_sb3s_own(buffer):
        # A class of the user's own may do anything in add().
        _add_row_by_row(buffer, rollout, rows, rewards, episode_starts, values, arguments)
        return
    # SB3's own copies row by row what can be copied at once.
    source, target = slice(rows.start, rows.stop), slice(buffer.pos, buffer.pos + len(rows))
    if isinstance(rollout.observations, dict):
        for key, array in rollout.observations.items():
            buffer.observations[key] = _shared_or_copied(array, source, buffer.observations[key], target)
    else:
        buffer.observations = _shared_or_copied(rollout.observations, source, buffer.observations, target)
    _copy(rollout.actions[source], buffer.actions[target])
    buffer.rewards[target] = rewards
    buffer.episode_starts[target] = episode_starts
    buffer.values[target] = values
    buffer.log_probs[target] = rollout.fields[LOG_PROBS][source]
    for name, array in (further or {}).items():
        getattr(buffer, name)[target] = array
    buffer.pos += len(rows)
    buffer.full = buffer.pos == buffer.buffer_size


def _add_row_by_row(
    buffer: RolloutBuffer,
    rollout: Rollout,
    rows: range,
    rewards: np.ndarray,
    episode_starts: np.ndarray,
    values: np.ndarray,
    arguments: Callable[[int], dict[str, Any]],
) -> None:
    log_probs = rollout.fields[LOG_PROBS][rows.start : rows.stop]
    for index, step in enumerate(rows):
        buffer.add(
            row(rollout.observations, step),  # type: ignore[arg-type]
            rollout.actions[step].reshape(rollout.n_envs, -1),
            rewards[index],
            episode_starts[index],
            th.from_numpy(values[index]).unsqueeze(-1),
            th.from_numpy(log_probs[index]),
            **arguments(step),
        )


def _shared_or_copied(array: np.ndarray, source: slice, held: np.ndarray, target: slice) -> np.ndarray:
    """
    What the buffer holds from now on: the rollout's array itself where it is of the same kind, which saves a copy of
    all observations. The buffer gets arrays of its own with its next reset.
    """
    if array is held or (source == target and array.shape == held.shape and array.dtype == held.dtype):
        return array
    _copy(array[source], held[target])
    return held


def _copy(source: np.ndarray, target: np.ndarray) -> None:
    """The buffer keeps a scalar as an array of one element, and an action of any shape as a vector."""
    target[...] = source.reshape(target.shape)
