"""Returns of several steps of transitions in a replay buffer, as SB3's ``NStepReplayBuffer`` has them."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle.sb3_private import normalized_rewards


def n_step_returns(
    buffer: Any, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    :param buffer: a replay buffer with ``n_steps`` and ``gamma``
    :param rows: where returns begin, ``[B]``
    :param envs: in which columns, ``[B]``
    :param env: normalises rewards
    :return: the row of the last step of each return, ``[B]``; the returns, ``[B, 1]``; and the discount factors of what
        comes after them, ``[B, 1]``
    """
    steps = np.arange(buffer.n_steps)
    ahead = (rows[:, None] + steps) % buffer.buffer_size
    columns = envs[:, None]
    # The oldest step does not continue the newest one.
    is_newest = ahead == (buffer.pos - 1) % buffer.buffer_size
    ends = buffer.dones[ahead, columns].astype(bool) | buffer.timeouts[ahead, columns].astype(bool) | is_newest
    ends[:, -1] = True
    n_taken = ends.argmax(axis=1) + 1
    taken = steps < n_taken[:, None]
    rewards = normalized_rewards(buffer, buffer.rewards[ahead, columns], env)
    # In single precision, as in SB3.
    discounts = buffer.gamma ** steps.astype(np.float32)
    returns = (rewards * discounts * taken).sum(axis=1, keepdims=True)
    last = ahead[np.arange(len(rows)), n_taken - 1]
    return last, returns, buffer.gamma ** n_taken[:, None].astype(np.float32)
