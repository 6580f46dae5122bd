"""What the learner adds to what samplers record: values, and the rewards to learn from."""

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.collection.rollout import Rollout
from sb3_walle.samplers.actors.protocol import BOOTSTRAP_VALUES, VALUES
from sb3_walle.samplers.infos import TERMINAL_OBSERVATION, TRUNCATED
from sb3_walle.transport.chunk import Observations, between, row


def rollout_values(policy: ActorCriticPolicy, rollout: Rollout, rows: range) -> np.ndarray:
    """
    :param rows: some of its rows, T
    :return: values of their observations, ``[T, n_envs]``: those that samplers recorded, or else the policy's
    """
    if VALUES in rollout.fields:
        return rollout.fields[VALUES][rows.start : rows.stop]
    return predict(policy, between(rollout.observations, rows), n_batch_axes=2)


def learner_rewards(policy: ActorCriticPolicy, rollout: Rollout, rows: range, gamma: float) -> np.ndarray:
    """
    The rewards to learn from. They are an array of their own: callbacks are shown the environments' rewards.

    Where an episode was truncated, and where a stream ends before the last row, the discounted value of what would have
    come next is added (Pardo et al., 2018, "Time Limits in Reinforcement Learning", eq. 6), as SB3 does for truncation.

    :param rows: some of its rows, T, which are the last ones or are continued by the next
    :return: rewards, ``[T, n_envs]``
    """
    rewards = rollout.rewards[rows.start : rows.stop].copy()
    # float32 arithmetic throughout, as in SB3, so that the last bit agrees.
    discount = np.float32(gamma)
    if BOOTSTRAP_VALUES in rollout.fields:
        rewards += discount * rollout.fields[BOOTSTRAP_VALUES][rows.start : rows.stop]
    else:
        _add_truncation_values(policy, rollout, rows, discount, rewards)
    _add_stream_end_values(policy, rollout, rows, discount, rewards)
    return rewards


def correct_cut_off(
    policy: ActorCriticPolicy, rollout: Rollout, next_step: int, gamma: float, buffer: RolloutBuffer
) -> None:
    """
    Add what is missing from rewards that are in the buffer already, where it turns out that the next row does not
    continue the last: a sampler has died, and the one in its place has begun new episodes. As with a time limit, the
    discounted value of what would have come next is added.

    :param next_step: the first row that is not in the buffer yet, but known by now
    """
    last = next_step - 1
    if next_step > 0 and (rollout.stream_ends[last] & ~rollout.dones[last]).any():
        missing = np.zeros((2, rollout.n_envs), np.float32)
        _add_stream_end_values(policy, rollout, range(last, next_step + 1), np.float32(gamma), missing)
        buffer.rewards[last] += missing[0]


def learner_episode_starts(rollout: Rollout, rows: range) -> np.ndarray:
    """
    Where an advantage estimate must not look past: an episode's first step, or a stream's.

    :param rows: some of its rows, T
    :return: booleans, ``[T, n_envs]``
    """
    starts = rollout.episode_starts[rows.start : rows.stop].copy()
    starts[1:] |= rollout.stream_ends[rows.start : rows.stop - 1]
    return starts


def last_values(policy: ActorCriticPolicy, rollout: Rollout) -> th.Tensor:
    """:return: values of what the last row of a complete rollout led to, ``[n_envs, 1]``"""
    if rollout.stream_end_values is not None:
        values = rollout.stream_end_values[-1]
    else:
        values = predict(policy, rollout.next_observations(rollout.n_steps - 1), n_batch_axes=1)
    return th.from_numpy(values.copy()).unsqueeze(-1)


def predict(policy: ActorCriticPolicy, observations: Observations, n_batch_axes: int) -> np.ndarray:
    """:return: the policy's values of many observations, in one pass, with the same leading axes"""
    first = next(iter(observations.values())) if isinstance(observations, dict) else observations
    with th.no_grad():
        values = policy.predict_values(obs_as_tensor(flattened(observations, n_batch_axes), policy.device))
    return values.cpu().numpy().reshape(first.shape[:n_batch_axes])


def flattened(observations: Observations, n_batch_axes: int) -> Observations:
    """:return: the same with one leading axis instead of several"""
    if isinstance(observations, dict):
        return {key: array.reshape(-1, *array.shape[n_batch_axes:]) for key, array in observations.items()}
    return observations.reshape(-1, *observations.shape[n_batch_axes:])


def _add_truncation_values(
    policy: ActorCriticPolicy, rollout: Rollout, rows: range, discount: np.float32, rewards: np.ndarray
) -> None:
    places, observations = [], []
    ends = np.flatnonzero(rollout.dones[rows.start : rows.stop].any(axis=1))
    for step in (rows.start + ends).tolist():
        for env, info in rollout.infos[step]:
            if info.get(TRUNCATED) and TERMINAL_OBSERVATION in info:
                places.append((step - rows.start, env))
                observations.append(info[TERMINAL_OBSERVATION])
    if places:
        values = predict(policy, _stack(observations), n_batch_axes=1)
        rewards[tuple(np.transpose(places))] += discount * values


def _add_stream_end_values(
    policy: ActorCriticPolicy, rollout: Rollout, rows: range, discount: np.float32, rewards: np.ndarray
) -> None:
    # The last of the rows is continued by the next ones, or has its value in last_values().
    before_last = slice(rows.start, rows.stop - 1)
    steps, envs = np.nonzero(rollout.stream_ends[before_last] & ~rollout.dones[before_last])
    if len(steps) == 0:
        return
    if rollout.stream_end_values is not None:
        values = rollout.stream_end_values[steps + rows.start, envs]
    else:
        places = zip((steps + rows.start).tolist(), envs.tolist(), strict=True)
        led_to = [row(rollout.next_observations(step), env) for step, env in places]
        values = predict(policy, _stack(led_to), n_batch_axes=1)
    rewards[steps, envs] += discount * values


def _stack(observations: list[Observations]) -> Observations:
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)  # type: ignore[arg-type]
