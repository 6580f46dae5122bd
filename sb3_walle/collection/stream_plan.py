"""
Which steps fill which columns, where columns hold whole streams. This file knows steps only by their numbers.

SB3's replay buffers take steps row by row, one of each column. So what a fast environment makes beyond the steps of its
own column goes into the column of a slower one, in runs that are long enough for both streams.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sb3_walle.collection.stream import Stream

#: a run that does not end with an episode is at least this long, and so is what lies between two cuts of a column
RUN_STEPS = 128
# An environment gives a run away only if it is as far ahead of its column. With less, columns change hands whenever a
# fast environment is late for a moment; with more, steps get older without anything gained.
SURPLUS_STEPS = 96
# How many steps of an environment may wait: with as many, one that may be cut always has a run.
MOST_WAITING = 192


@dataclass(frozen=True)
class StreamRules:
    """
    What the columns of rollouts have to be for what they are copied to.

    :param can_cut: whether an episode may continue elsewhere than in the row below: a replay buffer that can mark its
        last step as truncated
    """

    can_cut: bool


class Move(NamedTuple):
    """
    Steps that fill columns side by side.

    :param env: the first environment
    :param n_envs: how many environments, one column each, all of one sampler
    :param steps: numbers of the steps in the streams of these environments
    :param row: first row
    :param column: first column
    :param follows: whether the first step follows the one in the row above in the same environment; not the very first
        one, before which steps that samplers had made ahead may have been dropped
    """

    env: int
    n_envs: int
    steps: range
    row: int
    column: int
    follows: bool


class _Column:
    """A column of rollouts. It begins as if the environment of the same number had just ended an episode there."""

    def __init__(self, index: int) -> None:
        self.filled = 0
        #: the run of another environment that is being put here, as far as it is left
        self.run, self.run_env, self.run_ends_episode = range(0), -1, False
        #: environment and number of the last step
        self.last = (index, -1)
        self.at_end = True
        #: rows since an episode was cut in the middle
        self.since_cut = RUN_STEPS
        #: whether the column's own environment has not kept pace, so that it needs a run to continue
        self.is_behind = False
        #: whether it gave a run away, and continues after it
        self.has_given = False


class StreamPlan:
    """
    Every environment has a column of its own, which takes its steps as they arrive. Where it has nothing to give, the
    column takes a *run* of an environment that is far ahead of its own column: a whole episode, the rest of one, or, if
    episodes may be cut, at least ``RUN_STEPS`` steps, out of what waits for its turn. The column takes the whole run.
    The environment that it comes from continues in its own column after the run. The column's own environment waits
    until it has a run, too: with single steps of a slow environment, the column would soon be in the middle of an
    episode again, and could not leave it.

    So a column changes the environment at the end of an episode, or, where episodes may be cut, in the middle of one,
    with at least ``RUN_STEPS`` rows between two cuts. What waits is bounded, because samplers with :meth:`n_waiting`
    steps of ``MOST_WAITING`` are asked for no more, and a column never waits for such a sampler.

    :param rules: what columns may hold
    :param steps_get_old: whether steps that wait may be dropped, see :meth:`drop_before`. Then an environment does not
        wait until it has a run of its own, which it might never have
    """

    def __init__(
        self,
        n_samplers: int,
        envs_per_sampler: int,
        n_rows: int,
        rules: StreamRules,
        steps_get_old: bool = False,
    ) -> None:
        self._n_samplers, self._envs_per_sampler, self._n_rows = n_samplers, envs_per_sampler, n_rows
        self._rules, self._steps_get_old = rules, steps_get_old
        n_envs = n_samplers * envs_per_sampler
        self._envs = [range(first, first + envs_per_sampler) for first in range(0, n_envs, envs_per_sampler)]
        self._streams = [Stream() for _ in range(n_envs)]
        self._columns = [_Column(index) for index in range(n_envs)]
        self._n_unfilled = n_envs

    @property
    def is_complete(self) -> bool:
        return self._n_unfilled == 0

    def begin_rollout(self) -> None:
        self._n_unfilled = len(self._columns)
        for column in self._columns:
            column.filled = 0

    def arrive(self, sampler: int, n_steps: int, ends: list[list[int]], is_successor: list[bool]) -> int:
        """
        Note that a chunk has arrived.

        :param ends: for each of the sampler's environments, the steps with which an episode ended
        :param is_successor: for each of these environments, whether the chunk begins with a new episode
        :return: number of the chunk's first step in the streams of these environments
        """
        first = self._streams[sampler * self._envs_per_sampler].n_arrived
        for env, ends_of_env, begins in zip(self._envs_of(sampler), ends, is_successor, strict=True):
            stream, column = self._streams[env], self._columns[env]
            if begins and not stream.is_end(first - 1):
                # Another sampler has taken the place of one that died.
                stream.break_off()
                if column.last == (env, first - 1):
                    column.at_end, column.since_cut = True, 0
            stream.arrive(n_steps, ends_of_env)
        return first

    def moves(self) -> Iterator[Move]:
        """What can be put into columns now. Carry out each move before the next one is asked for."""
        if any(stream.waiting for stream in self._streams) or any(column.run for column in self._columns):
            for sampler in range(self._n_samplers):
                yield from self.moves_of(sampler)

    def moves_after(self, sampler: int) -> Iterator[Move]:
        """The same, if something has arrived of one sampler only since the last moves."""
        yield from self.moves_of(sampler)
        if self._n_unfilled and any(self._streams[env].waiting for env in self._envs_of(sampler)):
            for other in range(self._n_samplers):
                if other != sampler:
                    yield from self.moves_of(other)

    def moves_of(self, sampler: int) -> Iterator[Move]:
        """What can be put into the columns of a sampler's environments now."""
        envs = self._envs_of(sampler)
        if self._are_abreast(envs):
            row = self._columns[envs.start].filled
            for env in envs:
                steps = self._streams[env].take(self._room(env))
                self._fill(env, env, steps)
            yield Move(envs.start, len(envs), steps, row, envs.start, steps.start > 0)
        for env in envs:
            while self._columns[env].filled < self._n_rows:
                found = self._next_steps(env)
                if found is None:
                    break
                source, steps = found
                column = self._columns[env]
                follows = steps.start > 0 and column.last == (source, steps.start - 1)
                move = Move(source, 1, steps, column.filled, env, follows)
                self._fill(env, source, steps)
                yield move

    def n_waiting(self, sampler: int) -> int:
        """How many steps wait of each environment of a sampler at most; none if one of its columns waits for it."""
        envs = self._envs_of(sampler)
        if self._n_unfilled and any(self._columns[env].filled < self._n_rows for env in envs):
            return 0
        return self._most_waiting(sampler)

    def is_displaced(self, sampler: int) -> bool:
        """Whether a run of another environment is being put into one of a sampler's columns."""
        return any(self._columns[env].run for env in self._envs_of(sampler))

    def drop_before(self, sampler: int, step: int) -> list[tuple[int, range]]:
        """
        Drop steps of a sampler that come before one. Where an episode must not be cut, only whole episodes are dropped,
        and one that has begun in a column is completed.

        :return: the environments and steps that are dropped
        """
        dropped = []
        for env in self._envs_of(sampler):
            stream = self._streams[env]
            while (n_steps := self._n_to_drop(stream, step)) > 0:
                dropped.append((env, stream.take(n_steps)))
        if self._rules.can_cut:
            for column in self._columns:
                if column.run and column.run_env in self._envs_of(sampler) and column.run.start < step:
                    kept = range(min(step, column.run.stop), column.run.stop)
                    dropped.append((column.run_env, range(column.run.start, kept.start)))
                    column.run = kept
        return dropped

    def _envs_of(self, sampler: int) -> range:
        return self._envs[sampler]

    def _room(self, index: int) -> int:
        return self._n_rows - self._columns[index].filled

    def _most_waiting(self, sampler: int) -> int:
        return max(self._streams[env].n_waiting for env in self._envs_of(sampler))

    def _are_abreast(self, envs: range) -> bool:
        """Whether the columns of a sampler take the next steps of their own environments, all of them the same."""
        first, waiting = self._columns[envs.start], self._streams[envs.start].waiting
        if not waiting or first.filled == self._n_rows:
            return False
        for env in envs:
            column, own = self._columns[env], self._streams[env].waiting
            follows = not column.run and column.last == (env, waiting[0].start - 1)
            if not follows or column.filled != first.filled or not own or own[0] != waiting[0]:
                return False
        return True

    def _next_steps(self, index: int) -> tuple[int, range] | None:
        """What a column takes next: the environment, and steps for which there is room."""
        column, own, room = self._columns[index], self._streams[index], self._room(index)
        if not column.run and not self._own_is_next(index) and self._may_change(index):
            self._claim_run(column, index)
        if column.run:
            steps, column.run = column.run[:room], column.run[room:]
            return column.run_env, steps
        return (index, own.take(room)) if self._own_is_next(index) else None

    def _own_is_next(self, index: int) -> bool:
        column, own = self._columns[index], self._streams[index]
        if not own.waiting:
            return False
        if column.has_given or self._is_run(own):
            return True
        can_leave = not column.is_behind or not column.at_end or (self._rules.can_cut and column.since_cut >= RUN_STEPS)
        return column.last == (index, own.next_step - 1) and can_leave

    def _is_run(self, stream: Stream) -> bool:
        """Whether what waits can be put into the environment's own column without waiting for more."""
        enough = RUN_STEPS if self._rules.can_cut else MOST_WAITING
        return self._steps_get_old or stream.n_waiting >= enough or stream.first_end(stream.next_step) is not None

    def _may_change(self, index: int) -> bool:
        """Whether a column may take the steps of another environment than its last one's."""
        column = self._columns[index]
        is_torn = column.last != (index, self._streams[index].next_step - 1)
        return column.at_end or is_torn or (self._rules.can_cut and column.since_cut >= RUN_STEPS)

    def _claim_run(self, column: _Column, index: int) -> None:
        """Have a column take a run of the environment of which most waits."""
        donors = [env for env, stream in enumerate(self._streams) if stream.n_waiting > SURPLUS_STEPS and env != index]
        for env in sorted(donors, key=lambda env: -self._streams[env].n_waiting):
            run = self._run_of(env)
            if run is not None:
                stream = self._streams[env]
                column.run, column.run_env, column.run_ends_episode = run, env, stream.is_end(run.stop - 1)
                stream.claim(run)
                column.is_behind = True
                # It does not take a run of yet another one in turn.
                self._columns[env].has_given |= not self._columns[env].run
                return

    def _run_of(self, env: int) -> range | None:
        """A run that an environment can do without."""
        stream, sampler = self._streams[env], env // self._envs_per_sampler
        fullest = self._most_waiting(sampler)
        if fullest > MOST_WAITING and stream.n_waiting < fullest:
            # The sampler would be asked for more, and what waits of its other environments would grow without bound.
            return None
        for start, stop in self._possible_starts(env):
            end = stream.first_end(start)
            run = range(start, end + 1 if end is not None else start + RUN_STEPS)
            is_allowed = end is not None or self._rules.can_cut
            if is_allowed and run.stop <= stop and len(run) < stream.n_waiting:
                return run
        return None

    def _possible_starts(self, env: int) -> Iterator[tuple[int, int]]:
        """Where runs may begin, each with where the steps that wait stop: episodes, and where one may be cut."""
        stream, column = self._streams[env], self._columns[env]
        yield from stream.starts()
        if self._rules.can_cut:
            is_torn = column.at_end or column.last != (env, stream.next_step - 1)
            n_rows_to_cut = 0 if is_torn else max(0, RUN_STEPS - column.since_cut)
            yield stream.next_step + n_rows_to_cut, stream.waiting[0].stop

    def _fill(self, index: int, env: int, steps: range) -> None:
        """Note that a column has been given steps."""
        column = self._columns[index]
        if not column.at_end and column.last != (env, steps.start - 1):
            column.since_cut = 0
        column.filled += len(steps)
        column.since_cut += len(steps)
        column.last = (env, steps.stop - 1)
        if env == index:
            column.has_given = False
            column.at_end = self._streams[env].is_end(steps.stop - 1)
        else:
            column.at_end = column.run_ends_episode and not column.run
        if column.filled == self._n_rows:
            self._n_unfilled -= 1

    def _n_to_drop(self, stream: Stream, step: int) -> int:
        """How many steps of those that wait first are older than a step, and are dropped."""
        if not stream.waiting or stream.next_step >= step:
            return 0
        if self._rules.can_cut:
            return step - stream.next_step
        end = stream.first_end(stream.next_step)
        is_whole = stream.is_end(stream.next_step - 1) and end is not None and end < step
        return end + 1 - stream.next_step if end is not None and is_whole else 0
