"""
Episodes of which a replay buffer gets no more steps although they have not ended: a sampler died, or a column of the
buffer continues with another environment.

Such an episode is truncated, and never terminal: what the critic learns of its last step needs the value of the next
observation. A buffer with ``optimize_memory_usage`` cannot say that, because it has no place for that observation.
"""

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.sb3_private import note_end_of_episode


def can_mark_cuts(buffer: ReplayBuffer | None) -> bool:
    """:return: whether the last step of an episode that is cut can be marked as truncated in the buffer"""
    arrays = (getattr(buffer, name, None) for name in ("dones", "timeouts", "next_observations"))
    return all(array is not None for array in arrays) and not getattr(buffer, "optimize_memory_usage", False)


def cut_off(buffer: ReplayBuffer, envs: np.ndarray) -> None:
    """
    End episodes with the step that was added last. A buffer of a class that keeps no ``dones`` is left as it is.

    :param envs: in which environments, ``[n_envs]``
    """
    if not isinstance(getattr(buffer, "dones", None), np.ndarray) or (buffer.pos == 0 and not buffer.full):
        return
    if not can_mark_cuts(buffer):
        for env in np.flatnonzero(envs):
            replace_unfinished_episode(buffer, int(env))
        return
    last = buffer.pos - 1
    # Samples look at timeouts whether the buffer handles time limits itself or not.
    buffer.dones[last, envs] = buffer.timeouts[last, envs] = True
    if isinstance(buffer, HerReplayBuffer):
        for env in np.flatnonzero(envs):
            note_end_of_episode(buffer, int(env))


def make_room(buffer: ReplayBuffer) -> None:
    """Take away the marks of the row that is overwritten next, if the buffer does not do that itself."""
    if can_mark_cuts(buffer) and not buffer.handle_timeout_termination:
        buffer.timeouts[buffer.pos] = False


def replace_unfinished_episode(buffer: ReplayBuffer, env: int) -> None:
    """
    Overwrite the steps of an episode that does not continue with copies of as many others, the last of which ends an
    episode: of those that were added last, those of the environment with the most recent end that has as many steps
    before it. So every transition that is left is one that was made. If no episode has ended yet, nothing can be done,
    and the last step leads to what is added next.

    :param buffer: a replay buffer with ``optimize_memory_usage``
    :param env: column of the episode
    """
    rows = np.arange(buffer.pos - buffer.buffer_size + 1 if buffer.full else 0, buffer.pos) % buffer.buffer_size
    dones = buffer.dones[rows].astype(bool)
    own_ends = np.flatnonzero(dones[:, env])
    start, stop = (own_ends[-1] + 1 if len(own_ends) else 0), len(rows)
    ends = np.argwhere(dones)
    if not len(ends):
        return
    while start < stop:
        n_missing = stop - start
        long_enough = ends[ends[:, 0] + 1 >= n_missing]
        # The longest piece there is, where none is as long as the episode: the rest is overwritten in the same way.
        end, column = (int(index) for index in (long_enough if len(long_enough) else ends)[-1])
        n_rows = min(n_missing, end + 1)
        source, target = rows[end + 1 - n_rows : end + 1], rows[stop - n_rows : stop]
        for array in (buffer.observations, buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts):
            array[target, env] = array[source, column]
        stop -= n_rows
