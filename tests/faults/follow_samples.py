"""Following every sample through training, and the processes that they come from."""

import os
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stamped_task import CHECKSUM, EPISODE, EPISODE_LENGTH, LIFE, STEP, checksum


class FollowSamples(BaseCallback):
    """
    Looks at all that is learned from: whether a sample is torn or comes twice, and whether in a column each sample is
    followed by the next one of the same environment, or by the first of a new environment in its place.

    :param is_ordered: whether a column belongs to one environment; where it does not, and samples are thrown away
        because they are too old, environments are followed instead
    """

    def __init__(self, is_ordered: bool = True) -> None:
        super().__init__()
        self.is_ordered = is_ordered
        self.n_samples = self.n_lives = 0
        self.n_torn = self.n_duplicated = self.n_missing = self.n_stale = 0
        self._n_rows = 0
        self._seen: set[tuple[float, ...]] = set()
        #: the last sample of each column, or of each environment
        self._last: dict[float, np.ndarray] = {}

    @property
    def n_lost(self) -> int:
        """Samples that are missing between two others, and were not thrown away because they were too old."""
        return max(0, self.n_missing - self.n_stale)

    def check(self, n_samples: int) -> None:
        """
        :param n_samples: how many samples there should be
        """
        assert self.n_samples == n_samples
        assert (self.n_torn, self.n_duplicated, self.n_lost) == (0, 0, 0)

    def _on_step(self) -> bool:
        stamps, rewards, dones = self.locals["new_obs"][:, 0], self.locals["rewards"], self.locals["dones"]
        self._check_number()
        # What an episode's last step led to is the first observation of the next one.
        self.n_torn += int((rewards != np.where(dones, EPISODE_LENGTH, stamps[:, STEP])).sum())
        self.n_torn += int((stamps[dones, STEP] != 0).sum())
        return True

    def _check_number(self) -> None:
        assert self.n_calls * self.training_env.num_envs == self.num_timesteps

    def _on_rollout_end(self) -> None:
        observations, says_start = self._collected()
        self.n_stale += self.model._experience.collector.statistics.n_stale_steps
        stamps = observations[:, :, 0]
        words = np.moveaxis(stamps[..., :CHECKSUM], -1, 0)
        is_whole = (observations == observations[:, :, :1]).all(axis=(2, 3))
        self.n_torn += int((~is_whole | (checksum(*words) != stamps[..., CHECKSUM])).sum())
        # Where another environment's samples follow, that counts as a start, too.
        is_start = stamps[..., STEP] == 0
        self.n_torn += int((is_start != says_start).sum() if self.is_ordered else (is_start & ~says_start).sum())
        if self.is_ordered:
            for column in range(stamps.shape[1]):
                self._follow(column, stamps[:, column])
        else:
            flat = stamps.reshape(-1, stamps.shape[-1])
            flat = flat[np.lexsort((flat[:, STEP], flat[:, EPISODE]))]
            for life in np.unique(flat[:, LIFE]):
                self._follow(life, flat[flat[:, LIFE] == life])

    def _collected(self) -> tuple[np.ndarray, np.ndarray]:
        """What the rollout has added: the observations, and where episodes begin, as far as the algorithm knows."""
        if not isinstance(self.model, OffPolicyAlgorithm):
            return self.model.rollout_buffer.observations, self.model.rollout_buffer.episode_starts.astype(bool)
        buffer = self.model.replay_buffer
        dones = buffer.dones[: buffer.pos].astype(bool)
        starts = np.concatenate([np.ones_like(dones[:1]), dones[:-1]])
        assert not buffer.full
        rows = slice(self._n_rows, buffer.pos)
        self._n_rows = buffer.pos
        return buffer.observations[rows], starts[rows]

    def _on_training_start(self) -> None:
        if isinstance(self.model, OffPolicyAlgorithm):
            self._n_rows = self.model.replay_buffer.pos

    def _follow(self, source: float, stamps: np.ndarray) -> None:
        for stamp in stamps:
            sample, before = tuple(stamp), self._last.get(source)
            self.n_duplicated += sample in self._seen
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
            # Less than none is a duplicate, or another order.
            self.n_missing += int(abs(missing))


class FollowEpisodes(FollowSamples):
    """The same where rollouts consist of whole episodes, and whether each has as many as it should."""

    def __init__(self) -> None:
        super().__init__(is_ordered=False)
        self.n_made = 0
        #: how many episodes a rollout has that is asked for when this one begins, and how many whole ones this one has
        self.n_wanted: list[int] = []
        self.n_whole: list[int] = []

    def check_episodes(self, policy_lag: int) -> None:
        # Where the last one is not asked for ahead, more is known.
        for number, n_whole in enumerate(self.n_whole[: len(self.n_whole) - 1 - policy_lag]):
            assert n_whole == self.n_wanted[max(0, number - policy_lag)]

    def _check_number(self) -> None:
        self.n_made += int(self.locals["step_made"].sum())
        assert self.n_made == self.num_timesteps

    def _on_rollout_start(self) -> None:
        mean_steps = self.model.mean_episode_steps or self.model.max_episode_steps
        self.n_wanted.append(max(1, round(self.model.target_steps / mean_steps)))

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        self.n_whole.append(int((self._collected()[0][..., 0, STEP] == EPISODE_LENGTH - 1).sum()))


def _position(stamp: np.ndarray) -> float:
    """How many samples the environment has given before this one."""
    return stamp[EPISODE] * EPISODE_LENGTH + stamp[STEP]


def sampler_processes() -> list[int]:
    """Numbers of the processes of all samplers of this process, and of the Ray cluster that it has started."""
    found, unseen = [], [os.getpid()]
    while unseen:
        parent = unseen.pop()
        children = _children(parent)
        (found if _is_fork_server(parent) else unseen).extend(children)
    return found


def _is_fork_server(pid: int) -> bool:
    try:
        return b"sb3_walle.backends.fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
