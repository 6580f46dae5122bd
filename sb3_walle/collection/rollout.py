"""The chunks of one training iteration, put together: what the learner sees of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sb3_walle.samplers.actors.protocol import LOG_PROBS, RANDOM_STATE
from sb3_walle.samplers.infos import ORIGINAL_TERMINAL_OBSERVATION, InfoRecord
from sb3_walle.samplers.normalizer import ORIGINAL_OBSERVATIONS, ORIGINAL_REWARDS
from sb3_walle.transport.chunk import Chunk, Observations


class Originals:
    """
    What ``VecNormalize`` saw of a rollout: observations and rewards as the environments gave them.

    :param arrays: a chunk's arrays by name
    :param empty_like: makes an array of the rollout from one of the chunk
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], empty_like: Callable[[np.ndarray], np.ndarray]) -> None:
        prefix = f"{ORIGINAL_OBSERVATIONS}/"
        self._names = {name.removeprefix(prefix): name for name in arrays if name.startswith(ORIGINAL_OBSERVATIONS)}
        self._observations = {part: empty_like(arrays[name]) for part, name in self._names.items()}
        self._next_observations = {part: empty_like(arrays[name]) for part, name in self._names.items()}
        self._rewards = empty_like(arrays[ORIGINAL_REWARDS]) if ORIGINAL_REWARDS in arrays else None
        self._terminal: dict[tuple[int, int], Any] = {}

    @property
    def exist(self) -> bool:
        """Whether there is a ``VecNormalize``."""
        return self._rewards is not None

    def paste(self, arrays: Mapping[str, np.ndarray], rows: range, envs: slice, target: tuple[slice, slice]) -> None:
        """
        :param arrays: a chunk's arrays by name
        :param rows: its rows to copy
        :param envs: its environments to copy
        :param target: rows and columns of the rollout
        """
        source, after = (slice(rows.start, rows.stop), envs), (slice(rows.start + 1, rows.stop + 1), envs)
        for part, name in self._names.items():
            self._observations[part][target] = arrays[name][source]
            self._next_observations[part][target] = arrays[name][after]
        if self._rewards is not None:
            self._rewards[target] = arrays[ORIGINAL_REWARDS][source]

    def take_terminal(self, info: dict[str, Any], step: int, env: int) -> None:
        """
        Take the last observation of an episode out of its info.

        :param info: an info
        :param step: row of the rollout
        :param env: column of the rollout
        """
        if ORIGINAL_TERMINAL_OBSERVATION in info:
            self._terminal[step, env] = info.pop(ORIGINAL_TERMINAL_OBSERVATION)

    def observations(self, step: int) -> Observations:
        """
        :param step: a row
        :return: what the environments showed before the step, ``[n_envs, ...]``, or a dictionary of such arrays
        """
        return self._row(self._observations, step)

    def next_observations(self, step: int) -> Observations:
        """
        :param step: a row
        :return: what it led to; at the end of an episode, the beginning of the next one
        """
        return self._row(self._next_observations, step)

    def rewards(self, step: int) -> np.ndarray:
        """
        :param step: a row
        :return: its rewards, ``[n_envs]``
        """
        assert self._rewards is not None
        return self._rewards[step]

    def terminal_observation(self, step: int, env: int) -> Any:
        """
        :param step: a row with which an episode ended
        :param env: column of that episode
        :return: its last observation
        """
        return self._terminal[step, env]

    @staticmethod
    def _row(arrays: dict[str, np.ndarray], step: int) -> Observations:
        rows = {part: array[step] for part, array in arrays.items()}
        return rows.get(ORIGINAL_OBSERVATIONS, rows)


class Rollout:
    """
    ``n_steps`` steps of all ``n_envs`` environments, in memory of its own.

    Usually a column holds one environment's consecutive steps. Where that is not so, because the next row comes from
    another environment or there is none, a *stream* ends: there the value of the next observation has to stand in for
    the steps that are missing. The last row always counts as such an end, whatever follows in the next rollout.

    :param n_steps: number of rows
    :param n_envs: number of columns
    :param like: any chunk of the samplers, for the shapes and types of its arrays
    """

    def __init__(self, n_steps: int, n_envs: int, like: Chunk) -> None:
        self.n_steps, self.n_envs = n_steps, n_envs

        def empty_like(array: np.ndarray) -> np.ndarray:
            return np.empty((n_steps, n_envs, *array.shape[2:]), array.dtype)

        def empty_observations() -> Observations:
            if isinstance(like.observations, dict):
                return {key: empty_like(array) for key, array in like.observations.items()}
            return empty_like(like.observations)

        def empty_if_recorded(name: str) -> np.ndarray | None:
            return empty_like(like.arrays[name]) if name in like.arrays else None

        #: what the policy saw, ``[n_steps, n_envs, ...]``, or a dictionary of such arrays
        self.observations = empty_observations()
        #: what each step led to; at the end of an episode, the beginning of the next one
        self.next_observations = empty_observations()
        #: actions as the policy gave them
        self.actions = empty_like(like.actions)
        #: the environments' rewards, normalised if they are inside of a ``VecNormalize``
        self.rewards = empty_like(like.rewards)
        #: whether the observation is the first of an episode
        self.episode_starts = empty_like(like.episode_starts)
        #: whether the step ended an episode
        self.dones = empty_like(like.episode_starts)
        self._log_probs = empty_if_recorded(LOG_PROBS)
        #: values of the observations; ``None`` if the actors have no value net
        self.values = empty_if_recorded("values")
        #: values of the last observations of truncated episodes, zero elsewhere; ``None`` as above
        self.bootstrap_values = empty_if_recorded("bootstrap_values")
        #: what ``VecNormalize`` saw, if there is one
        self.originals = Originals(like.arrays, empty_like)
        #: random state at the sampler after the last step; ``None`` if samplers have streams of their own
        self.random_state: np.ndarray | None = None
        #: whether the next row is not the continuation of this one
        self.stream_ends = np.zeros((n_steps, n_envs), dtype=bool)
        #: whether the row is the continuation of the one before, which for the first row is the last one of the rollout
        #: before; that an episode begins there does not matter
        self.continues = np.ones((n_steps, n_envs), dtype=bool)
        #: values of the next observations where a stream ends, zero elsewhere; ``None`` as above
        self.stream_end_values = None if self.values is None else np.zeros_like(self.values)
        #: for each step, the environments whose info was passed on, and the info
        self.infos: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(n_steps)]

    def paste(
        self,
        chunk: Chunk,
        infos: Sequence[InfoRecord],
        rows: range,
        step: int,
        env: int,
        is_continuation: bool,
        envs: slice | None = None,
    ) -> None:
        """
        Copy rows of a chunk into the rollout.

        :param chunk: the chunk
        :param infos: the infos that came with it
        :param rows: the chunk's rows to copy
        :param step: first row of the rollout to fill
        :param env: first column of the rollout to fill
        :param is_continuation: whether these steps directly follow those in the row above, or in the last row of the
            rollout before
        :param envs: the chunk's environments to copy, ``None`` for all
        """
        envs = slice(0, chunk.n_envs) if envs is None else envs
        source, after = (slice(rows.start, rows.stop), envs), (slice(rows.start + 1, rows.stop + 1), envs)
        target = (slice(step, step + len(rows)), slice(env, env + envs.stop - envs.start))
        _copy(chunk.observations, source, self.observations, target)
        _copy(chunk.observations, after, self.next_observations, target)
        self.actions[target] = chunk.actions[source]
        self.rewards[target] = chunk.rewards[source]
        self.episode_starts[target] = chunk.episode_starts[source]
        self.dones[target] = chunk.dones[source]
        if self._log_probs is not None:
            self._log_probs[target] = chunk.arrays[LOG_PROBS][source]
        self.originals.paste(chunk.arrays, rows, envs, target)
        if self.values is not None and self.bootstrap_values is not None:
            self.values[target] = chunk.arrays["values"][source]
            self.bootstrap_values[target] = chunk.arrays["bootstrap_values"][source]
        for info_step, info_env, info in infos:
            if info_step in rows and envs.start <= info_env < envs.stop:
                place, column = step + info_step - rows.start, env + info_env - envs.start
                self.originals.take_terminal(info, place, column)
                self.infos[place].append((column, info))
        if RANDOM_STATE in chunk.arrays:
            self.random_state = chunk.arrays[RANDOM_STATE].copy()
        self._mark_stream_end(chunk, rows, envs, target, is_continuation)

    @property
    def log_probs(self) -> np.ndarray:
        """Log-probabilities of the actions under the policy that chose them, of actors that record them."""
        assert self._log_probs is not None
        return self._log_probs

    def _mark_stream_end(
        self, chunk: Chunk, rows: range, envs: slice, target: tuple[slice, slice], is_continuation: bool
    ) -> None:
        first, last, columns = target[0].start, target[0].stop - 1, target[1]
        self.stream_ends[last, columns] = True
        self.continues[first, columns] = is_continuation
        if is_continuation and first > 0:
            # Where another sampler has taken the place of one that died, its first episode does not go on with the
            # one before, which is cut off there as by a time limit.
            starts_anew = chunk.episode_starts[rows.start, envs]
            self.stream_ends[first - 1, columns] = starts_anew & ~self.dones[first - 1, columns]
        if self.stream_end_values is not None:
            cut_short = rows.stop < chunk.n_steps
            values = chunk.arrays["values"][rows.stop] if cut_short else chunk.arrays["last_values"]
            self.stream_end_values[last, columns] = values[envs]


def _copy(source: Observations, taken: tuple[slice, slice], target: Observations, place: tuple[slice, slice]) -> None:
    if isinstance(source, dict):
        for key, array in source.items():
            target[key][place] = array[taken]
    else:
        target[place] = source[taken]  # type: ignore[index]
