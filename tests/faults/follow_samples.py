"""Following every sample through training, and the processes that they come from."""

import os
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stamped_task import CHECKSUM, EPISODE, EPISODE_LENGTH, LIFE, STEP, checksum


class FollowSamples(BaseCallback):
    """
    Checks all that is learned from: no sample is torn or comes twice, and in a column each sample is followed by the
    next one of the same environment, or by the first of a new environment in its place.

    :param is_ordered: whether a column belongs to one environment, so that nothing may be missing between two rows;
        where it does not, what is missing is counted
    """

    def __init__(self, is_ordered: bool = True) -> None:
        super().__init__()
        self.is_ordered = is_ordered
        self.n_samples = self.n_lives = self.n_missing = 0
        self._seen: set[tuple[float, ...]] = set()
        #: the last sample of each column; or of each environment, where a column does not belong to one
        self._last: dict[float, np.ndarray] = {}

    def _on_step(self) -> bool:
        stamps, rewards, dones = self.locals["new_obs"][:, 0], self.locals["rewards"], self.locals["dones"]
        assert self.n_calls * self.training_env.num_envs == self.num_timesteps
        # What an episode's last step led to is the first observation of the next one.
        assert np.array_equal(rewards[~dones], stamps[~dones, STEP])
        assert (rewards[dones] == EPISODE_LENGTH).all() and (stamps[dones, STEP] == 0).all()
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        assert buffer.full and (buffer.observations == buffer.observations[:, :, :1]).all(), "a sample is torn"
        stamps = buffer.observations[:, :, 0]
        assert np.array_equal(checksum(*np.moveaxis(stamps[..., :CHECKSUM], -1, 0)), stamps[..., CHECKSUM])
        starts = buffer.episode_starts.astype(bool)
        if self.is_ordered:
            assert np.array_equal(starts, stamps[..., STEP] == 0)
            for column in range(buffer.n_envs):
                self._follow(column, stamps[:, column])
        else:
            # Where another environment's samples follow, that counts as a start, too.
            assert starts[stamps[..., STEP] == 0].all()
            flat = stamps.reshape(-1, stamps.shape[-1])
            flat = flat[np.lexsort((flat[:, STEP], flat[:, EPISODE]))]
            for life in np.unique(flat[:, LIFE]):
                self._follow(life, flat[flat[:, LIFE] == life])

    def _follow(self, source: float, stamps: np.ndarray) -> None:
        for stamp in stamps:
            sample, before = tuple(stamp), self._last.get(source)
            assert sample not in self._seen, f"{sample} comes twice"
            self._seen.add(sample)
            self._last[source] = stamp
            self.n_samples += 1
            if before is None and self.is_ordered:
                # Training may have begun before, without being followed.
                self.n_lives += 1
                missing = stamp[STEP]
            elif before is None or before[LIFE] != stamp[LIFE]:
                self.n_lives += 1
                missing = _position(stamp)
            else:
                missing = _position(stamp) - _position(before) - 1
            assert missing == 0 if self.is_ordered else missing >= 0, f"{stamp} follows {before}"
            self.n_missing += int(missing)


def _position(stamp: np.ndarray) -> float:
    """How many samples the environment has given before this one."""
    return stamp[EPISODE] * EPISODE_LENGTH + stamp[STEP]


def sampler_processes() -> list[int]:
    """Numbers of the processes of all samplers of this process: they are children of its children."""
    return [sampler for server in _children(os.getpid()) for sampler in _children(server)]


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
