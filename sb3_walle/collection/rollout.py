"""The chunks of one training iteration, put together: what the learner sees of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_walle.samplers.actors.protocol import LAST_VALUES, RANDOM_STATE, VALUES
from sb3_walle.samplers.infos import ORIGINAL_TERMINAL_OBSERVATION, InfoRecord
from sb3_walle.transport.chunk import OBSERVATIONS, Chunk, Observations, named

EPISODE_STARTS = "episode_starts"


class Rollout:
    """
    ``n_steps`` steps of all ``n_envs`` environments, in memory of its own.

    Usually a column holds one environment's consecutive steps. Where that is not so, because the next row comes from
    another environment or there is none, a *stream* ends: there the value of the next observation has to stand in for
    the steps that are missing. The last row always counts as such an end.

    :param n_steps: number of rows
    :param n_envs: number of columns
    :param like: any chunk of the samplers, for the names, shapes and types of its arrays
    """

    def __init__(self, n_steps: int, n_envs: int, like: Chunk) -> None:
        self.n_steps, self.n_envs = n_steps, n_envs
        rows = like.rows_of_steps()
        #: all that was recorded at each step, by name, ``[n_steps, n_envs, ...]``
        self.fields = {name: np.zeros((n_steps, n_envs, *array.shape[2:]), array.dtype) for name, array in rows.items()}
        #: where columns have different lengths, whether a step was made, ``[n_steps, n_envs]``
        self.step_made: np.ndarray | None = None
        #: whether the step ended an episode
        self.dones = np.zeros((n_steps, n_envs), dtype=bool)
        #: random state at the sampler after the last step; ``None`` if samplers have streams of their own
        self.random_state: np.ndarray | None = None
        #: whether the next row is not the continuation of this one
        self.stream_ends = np.zeros((n_steps, n_envs), dtype=bool)
        #: whether the row is the continuation of the one before, which for the first row is the last one of the rollout
        #: before; that an episode begins there does not matter
        self.continues = np.ones((n_steps, n_envs), dtype=bool)
        #: values of the next observations where a stream ends, zero elsewhere; ``None`` if actors record no values
        self.stream_end_values = np.zeros((n_steps, n_envs), np.float32) if VALUES in rows else None
        #: for each step, the environments whose info was passed on, and the info
        self.infos: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(n_steps)]
        #: last observations of episodes before ``VecNormalize``, if there is one, by row and column
        self.original_terminal_observations: dict[tuple[int, int], Any] = {}
        # What a step leads to is the next row of these arrays, which have one row more than a chunk has steps. Where a
        # piece of a chunk ends, the row after it is kept: the next piece may come from elsewhere, or later, or never.
        self._names_of_next = [
            name for name, array in rows.items() if len(array) > like.capacity and name != EPISODE_STARTS
        ]
        self._kept: dict[int, list[tuple[slice, dict[str, np.ndarray]]]] = {}
        self._last_next: dict[str, tuple[int, Observations]] = {}

    @property
    def observations(self) -> Observations:
        """What the policy saw, ``[n_steps, n_envs, ...]``, or a dictionary of such arrays."""
        return named(self.fields, OBSERVATIONS)

    @property
    def actions(self) -> np.ndarray:
        """The actions as the policy gave them, ``[n_steps, n_envs, ...]``."""
        return self.fields["actions"]

    @property
    def rewards(self) -> np.ndarray:
        """The environments' rewards, normalised if they are inside of a ``VecNormalize``, ``[n_steps, n_envs]``."""
        return self.fields["rewards"]

    @property
    def episode_starts(self) -> np.ndarray:
        """Whether the observation is the first of an episode, ``[n_steps, n_envs]``."""
        return self.fields[EPISODE_STARTS]

    def n_steps_made(self, step: int) -> int:
        """:return: in how many columns of a row a step was made"""
        return self.n_envs if self.step_made is None else int(self.step_made[step].sum())

    def learned(self, rows: range) -> tuple["Rollout", range]:
        """
        :param rows: some rows, as callbacks are shown them
        :return: the rollout to learn from, and the rows of it that hold the same steps
        """
        return self, rows

    def shown(self, array: np.ndarray) -> np.ndarray:
        """:return: an array of rows to learn from, as callbacks are shown it"""
        return array

    def next_observations(self, step: int, name: str = OBSERVATIONS) -> Observations:
        """
        :param step: a row
        :param name: name of the observations
        :return: what the step led to; at the end of an episode, the beginning of the next one, ``[n_envs, ...]``, or a
            dictionary of such arrays. A view of the next row where the row is continued
        """
        last_step, led_to = self._last_next.get(name, (-1, {}))
        if last_step != step:
            led_to = self._led_to(name, step)
            self._last_next[name] = step, led_to
        return led_to

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

        :param infos: the infos that came with the chunk
        :param rows: the chunk's rows to copy
        :param step: first row of the rollout to fill
        :param env: first column of the rollout to fill
        :param is_continuation: whether these steps directly follow those in the row above, or in the last row of the
            rollout before
        :param envs: the chunk's environments to copy, ``None`` for all
        """
        envs = slice(0, chunk.n_envs) if envs is None else envs
        source = (slice(rows.start, rows.stop), envs)
        target = (slice(step, step + len(rows)), slice(env, env + envs.stop - envs.start))
        for name, array in self.fields.items():
            array[target] = chunk.arrays[name][source]
        self.dones[target] = chunk.dones[source]
        self._keep_row_after(chunk, rows, envs, target)
        for info_step, info_env, info in infos:
            if info_step in rows and envs.start <= info_env < envs.stop:
                place = step + info_step - rows.start, env + info_env - envs.start
                if ORIGINAL_TERMINAL_OBSERVATION in info:
                    self.original_terminal_observations[place] = info.pop(ORIGINAL_TERMINAL_OBSERVATION)
                self.infos[place[0]].append((place[1], info))
        if RANDOM_STATE in chunk.arrays:
            self.random_state = chunk.arrays[RANDOM_STATE].copy()
        self._mark_stream_end(chunk, rows, envs, target, is_continuation)

    def _keep_row_after(self, chunk: Chunk, rows: range, envs: slice, target: tuple[slice, slice]) -> None:
        kept = {name: chunk.arrays[name][rows.stop, envs].copy() for name in self._names_of_next}
        self._kept.setdefault(target[0].stop - 1, []).append((target[1], kept))

    def _led_to(self, name: str, step: int) -> Observations:
        if name in self.fields:
            return self._next_row(name, step)
        prefix = f"{name}/"
        parts = [part for part in self._names_of_next if part.startswith(prefix)]
        return {part.removeprefix(prefix): self._next_row(part, step) for part in parts}

    def _next_row(self, name: str, step: int) -> np.ndarray:
        array = self.fields[name]
        if step not in self._kept:
            return array[step + 1]
        row = array[min(step + 1, self.n_steps - 1)].copy()
        for columns, kept in self._kept[step]:
            row[columns] = kept[name]
        return row

    def _mark_stream_end(
        self, chunk: Chunk, rows: range, envs: slice, target: tuple[slice, slice], is_continuation: bool
    ) -> None:
        first, last, columns = target[0].start, target[0].stop - 1, target[1]
        self.stream_ends[last, columns] = True
        self.continues[first, columns] = is_continuation
        if is_continuation and first > 0:
            # Where another sampler has taken the place of one that died, its first episode does not continue the one
            # before, which is cut off there as by a time limit.
            starts_anew = chunk.episode_starts[rows.start, envs]
            self.stream_ends[first - 1, columns] = starts_anew & ~self.dones[first - 1, columns]
        if self.stream_end_values is not None:
            cut_short = rows.stop < chunk.n_steps
            values = chunk.arrays[VALUES][rows.stop] if cut_short else chunk.arrays[LAST_VALUES]
            self.stream_end_values[last, columns] = values[envs]
