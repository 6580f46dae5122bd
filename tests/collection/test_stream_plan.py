"""The plan of which steps fill which columns, with steps that are nothing but numbers."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.collection.stream_plan import MOST_WAITING, RUN_STEPS, Move, StreamPlan, StreamRules

N_SLOTS = 2


@dataclass
class Task:
    """Samplers that deliver chunks in an order of hypothesis's choice, and a learner that takes rollouts."""

    n_samplers: int
    envs_per_sampler: int
    n_rows: int
    can_cut: bool
    #: for each environment, the lengths of its episodes, again and again
    lengths: list[list[int]]
    #: chance of each sampler to be the next to deliver
    speeds: list[int]
    random: object = field(repr=False)
    n_deaths: int = 0
    #: for how many rollouts a step may wait, ``None`` for any number
    max_age: int | None = None

    def __post_init__(self) -> None:
        self.rules = StreamRules(self.can_cut)
        self.plan = StreamPlan(
            self.n_samplers, self.envs_per_sampler, self.n_rows, self.rules, self.max_age is not None
        )
        n_envs = self.n_samplers * self.envs_per_sampler
        self.columns: list[list[tuple[int, int]]] = [[] for _ in range(n_envs)]
        self.n_arrived = [0] * self.n_samplers
        self.ends: list[set[int]] = [set() for _ in range(n_envs)]
        self._left = [lengths[0] for lengths in self.lengths]
        self._episode = [0] * n_envs
        self.most_waiting = 0
        self.dropped: list[tuple[int, int]] = []
        # How many steps of each sampler had arrived when each rollout began.
        self._arrived_before: list[list[int]] = []
        self._oldest = [0] * self.n_samplers

    def run(self, n_rollouts: int) -> None:
        for _ in range(n_rollouts):
            self.plan.begin_rollout()
            self._drop_what_is_too_old()
            self._carry_out(list(self.plan.moves()))
            while not self.plan.is_complete:
                self._deliver(self._next_sampler())
            assert {len(column) for column in self.columns} == {len(self.columns[0])}

    def _drop_what_is_too_old(self) -> None:
        self._arrived_before.append(list(self.n_arrived))
        if self.max_age is None or len(self._arrived_before) <= self.max_age:
            return
        self._oldest = self._arrived_before[-1 - self.max_age]
        for sampler, oldest in enumerate(self._oldest):
            for env, steps in self.plan.drop_before(sampler, oldest):
                self.dropped += [(env, step) for step in steps]

    def _next_sampler(self) -> int:
        """One of those that are asked for something, of which there always is one."""
        asked = [sampler for sampler in range(self.n_samplers) if self._n_ahead(sampler) < self._most_ahead()]
        assert asked, "no sampler is asked for what the rollout waits for"
        weights = [self.speeds[sampler] for sampler in asked]
        return self.random.choices(asked, weights)[0]  # type: ignore[attr-defined]

    def _n_ahead(self, sampler: int) -> int:
        return self.plan.n_waiting(sampler)

    def _most_ahead(self) -> int:
        return N_SLOTS * self.n_rows + (MOST_WAITING if self.max_age is None else 0)

    def _deliver(self, sampler: int) -> None:
        n_steps = self.random.randint(1, max(1, self.n_rows))  # type: ignore[attr-defined]
        envs = range(sampler * self.envs_per_sampler, (sampler + 1) * self.envs_per_sampler)
        dies = self.n_deaths > 0 and self.random.random() < 0.02  # type: ignore[attr-defined]
        first = self.n_arrived[sampler]
        if dies and first > 0:
            self.n_deaths -= 1
            for env in envs:
                self.ends[env].add(first - 1)
                self._begin_episode(env)
        ends = [[step for step in range(n_steps) if self._ends_after_step(env)] for env in envs]
        begins = [first == 0 or first - 1 in self.ends[env] for env in envs]
        assert self.plan.arrive(sampler, n_steps, ends, begins) == first
        for env, ends_of_env in zip(envs, ends, strict=True):
            self.ends[env] |= {first + end for end in ends_of_env}
        self.n_arrived[sampler] += n_steps
        self._carry_out(list(self.plan.moves_after(sampler)))
        waiting = max(stream.n_waiting for stream in self.plan._streams)
        self.most_waiting = max(self.most_waiting, waiting)

    def _begin_episode(self, env: int) -> None:
        self._episode[env] += 1
        self._left[env] = self.lengths[env][self._episode[env] % len(self.lengths[env])]

    def _ends_after_step(self, env: int) -> bool:
        self._left[env] -= 1
        if self._left[env] == 0:
            self._begin_episode(env)
            return True
        return False

    def _carry_out(self, moves: list[Move]) -> None:
        for move in moves:
            for index in range(move.n_envs):
                column = self.columns[move.column + index]
                assert len(column) % self.n_rows == move.row % self.n_rows
                steps = [(move.env + index, step) for step in move.steps]
                assert not self.can_cut or move.steps.start >= self._oldest[move.env // self.envs_per_sampler]
                follows = bool(column) and column[-1] == (steps[0][0], steps[0][1] - 1)
                assert move.follows == follows
                column += steps

    def cuts(self, index: int) -> list[int]:
        """Rows of a column after which an episode is cut in the middle."""
        column = self.columns[index]
        return [
            row
            for row, ((env, step), after) in enumerate(pairwise(column))
            if after != (env, step + 1) and step not in self.ends[env]
        ]


@st.composite
def tasks(draw: st.DrawFn, max_ages: st.SearchStrategy[int | None]) -> Task:
    n_samplers, envs_per_sampler = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    lengths = st.lists(st.sampled_from([1, 2, 7, 20, 100, 300, 10**6]), min_size=1, max_size=3)
    n_envs = n_samplers * envs_per_sampler
    return Task(
        n_samplers,
        envs_per_sampler,
        draw(st.sampled_from([1, 2, 7, 64, 200])),
        draw(st.booleans()),
        draw(st.lists(lengths, min_size=n_envs, max_size=n_envs)),
        draw(st.lists(st.sampled_from([1, 3, 10, 1000]), min_size=n_samplers, max_size=n_samplers)),
        draw(st.randoms(use_true_random=False)),
        draw(st.integers(0, 3)),
        draw(max_ages),
    )


@settings(max_examples=40, deadline=None)
@given(task=tasks(st.none()), n_rows=st.integers(1, 1500))
def test_streams_stay_whole_nothing_is_lost_or_doubled_and_what_waits_is_bounded(task: Task, n_rows: int) -> None:
    task.run(-(-n_rows // task.n_rows))
    check_that_nothing_is_lost_or_doubled(task)
    for index in range(len(task.columns)):
        cuts = task.cuts(index)
        assert task.can_cut or not cuts
        assert all(later - earlier >= RUN_STEPS for earlier, later in pairwise(cuts))
    assert task.most_waiting <= 3 * MOST_WAITING + 2 * N_SLOTS * task.n_rows


@settings(max_examples=40, deadline=None)
@given(task=tasks(st.integers(1, 200)), n_rows=st.integers(1, 1500))
def test_what_is_too_old_is_dropped_and_cuts_no_episode_that_must_not_be_cut(task: Task, n_rows: int) -> None:
    task.run(-(-n_rows // task.n_rows))
    check_that_nothing_is_lost_or_doubled(task)
    assert task.can_cut or not any(task.cuts(index) for index in range(len(task.columns)))


def check_that_nothing_is_lost_or_doubled(task: Task) -> None:
    gone = Counter([*(step for column in task.columns for step in column), *task.dropped])
    assert set(gone.values()) == {1}
    for env, stream in enumerate(task.plan._streams):
        # What was not placed waits, or belongs to a run that is being put into a column.
        left = list(stream.waiting)
        left += [column.run for column in task.plan._columns if column.run_env == env]
        numbers = sorted([step for owner, step in gone if owner == env] + [step for steps in left for step in steps])
        assert numbers == list(range(task.n_arrived[env // task.envs_per_sampler]))


@pytest.mark.parametrize("envs_per_sampler", [1, 2])
def test_environments_that_keep_pace_keep_their_columns(envs_per_sampler: int) -> None:
    plan = StreamPlan(3, envs_per_sampler, 4, StreamRules(can_cut=True))
    for rollout in range(100):
        plan.begin_rollout()
        assert not list(plan.moves())
        for sampler in (2, 0, 1):
            nothing: list[list[int]] = [[]] * envs_per_sampler
            plan.arrive(sampler, 4, nothing, [False] * envs_per_sampler)
            # All environments of a sampler with one move.
            (move,) = plan.moves_after(sampler)
            assert move.env == move.column == sampler * envs_per_sampler
            assert move.n_envs == envs_per_sampler and len(move.steps) == 4
            # Nothing is known of the step before the first one.
            assert move.follows == (rollout > 0)
