"""Advantages and returns of a rollout, as SB3's rollout buffer estimates them."""

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_walle.on_policy.rollout_buffer import is_sb3s_own


def compute_advantages(buffer: RolloutBuffer, last_values: th.Tensor, dones: np.ndarray) -> None:
    """
    Generalized advantage estimation (Schulman et al., 2016, eq. 16), to the last bit as
    ``RolloutBuffer.compute_returns_and_advantage()`` does it.

    :param buffer: a full buffer
    :param last_values: values of the observations after the last step, ``[n_envs, 1]``
    :param dones: whether an episode ended with the last step, ``[n_envs]``
    """
    # A class of the user's own may estimate them otherwise.
    if not is_sb3s_own(buffer):
        buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)
        return
    values = buffer.values
    next_values = np.concatenate([values[1:], last_values.detach().cpu().numpy().reshape(1, -1)])
    next_non_terminal = 1.0 - np.concatenate([buffer.episode_starts[1:], dones[None].astype(np.float32)])
    errors = buffer.rewards + buffer.gamma * next_values * next_non_terminal - values
    accumulate(errors, buffer.gamma * buffer.gae_lambda * next_non_terminal, buffer.advantages)
    buffer.returns = buffer.advantages + values


# Whole episodes that follow one another in a single column are put side by side, unless that takes so many times the
# memory because their lengths differ too much.
MOST_CELLS = 10


def accumulate(errors: np.ndarray, discounts: np.ndarray, advantages: np.ndarray) -> None:
    """
    The one part that needs a loop over time. There is nothing in it that could be worked out for all steps at once.

    :param errors: temporal-difference errors, ``[n_steps, n_envs]``
    :param discounts: what each step's advantage counts for that of the step before, ``[n_steps, n_envs]``
    :param advantages: where to put the advantages, ``[n_steps, n_envs]``
    """
    if errors.shape[1] == 1:
        ends = np.flatnonzero(discounts[:-1, 0] == 0)
        lengths = np.diff([-1, *ends, len(errors) - 1])
        if len(lengths) > 1 and lengths.max() * len(lengths) <= MOST_CELLS * len(errors):
            _accumulate_side_by_side(errors, discounts, advantages, lengths)
            return
    following = np.zeros_like(errors[0])
    for error, discount, advantage in zip(errors[::-1], discounts[::-1], advantages[::-1], strict=True):
        np.multiply(discount, following, out=advantage)
        np.add(advantage, error, out=advantage)
        following = advantage


def _accumulate_side_by_side(
    errors: np.ndarray, discounts: np.ndarray, advantages: np.ndarray, lengths: np.ndarray
) -> None:
    """
    The same for parts of a single column that do not depend on each other, with a step of all of them at a time.

    :param lengths: rows of each part
    """
    # All parts end in the last row.
    is_row = np.arange(lengths.max())[:, None] >= lengths.max() - lengths
    beside = [np.zeros(is_row.shape, errors.dtype) for _ in range(3)]
    for column, table in zip((errors, discounts), beside, strict=False):
        table.T[is_row.T] = column[:, 0]
    accumulate(*beside)
    advantages[:, 0] = beside[2].T[is_row.T]
