"""The step loop: what a sampler puts into chunks, when it stops, and what it continues with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_walle.samplers.infos import InfoRecord, InfoSelection, unpack
from sb3_walle.samplers.requests import Reset, Step
from sb3_walle.samplers.sampler import CollectionSettings, Sampler
from sb3_walle.samplers.tickets import ChunkReport, Ticket
from sb3_walle.transport.chunk import Chunk, Observations, Seal, chunk_layout
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.experience_queue import ExperienceGeometry
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.memory_queues import QueuePlan, open_queues

T, B = 8, 3
WEIGHTS = Layout((Field("bias", (), "<f8"),))


# A world in which every observation tells where it comes from


class Clockwork(gym.Env):
    """
    Observes ``[number, episode, step]``: its own number, the number of its episode, the steps made in it.

    :param number: number of this environment
    :param length: steps of an episode
    :param truncates: whether episodes end by truncation
    :param as_dict: whether the observation is a dictionary
    :param on_step: called with the number of steps made so far, before each of them
    """

    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(
        self,
        number: int = 0,
        length: int = 5,
        truncates: bool = False,
        as_dict: bool = False,
        on_step: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.number, self.length, self.truncates, self.as_dict, self.on_step = (
            number,
            length,
            truncates,
            as_dict,
            on_step,
        )
        box = spaces.Box(-1, 10_000, (3,), np.int32)
        self.observation_space = spaces.Dict({"clock": box, "step": spaces.Discrete(100)}) if as_dict else box
        self.episode, self.step_in_episode, self.n_steps = -1, 0, 0
        # The very objects that it was given, as some environments keep them.
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.step_in_episode = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.on_step(self.n_steps)
        self.actions.append(action)
        self.n_steps += 1
        self.step_in_episode += 1
        ends = self.step_in_episode == self.length
        reward = 100.0 * self.episode + self.step_in_episode
        return self.observe(), reward, ends and not self.truncates, ends and self.truncates, {"n": self.n_steps}

    def observe(self) -> Any:
        clock = np.array([self.number, self.episode, self.step_in_episode], np.int32)
        return {"clock": clock, "step": self.step_in_episode} if self.as_dict else clock


# An actor that records what it is asked


def first_of(observations: Observations) -> np.ndarray:
    return observations["clock"] if isinstance(observations, dict) else observations


class RecordingActor:
    """Acts by a rule, and records what it sees in the chunk."""

    def __init__(self, act: Callable[[np.ndarray, float], np.ndarray]) -> None:
        self._act = act
        self._bias = np.nan
        self._chunk: Chunk | None = None

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self._bias = float(weights["bias"])

    def begin_chunk(self, chunk: Chunk) -> None:
        self._chunk = chunk
        for name in ("seen", "biases", "last", "bootstraps"):
            chunk.arrays[name][...] = -1

    def act(self, observations: Observations, step: int) -> np.ndarray:
        self._chunk.arrays["seen"][step] = first_of(observations)
        self._chunk.arrays["biases"][step] = self._bias
        self._chunk.actions[step] = self._act(first_of(observations), self._bias)
        return self._chunk.actions[step]

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        self._chunk.arrays["bootstraps"][step, env] = first_of(terminal_observation)

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        self._chunk.arrays["last"][:, :3] = first_of(observations)
        self._chunk.arrays["last"][:, 3] = n_steps


def act_the_same(observations: np.ndarray, bias: float) -> np.ndarray:
    return np.full((len(observations), 2), 0.5)


@dataclass(frozen=True)
class RecordingActorSpec:
    action_space: spaces.Space
    act: Callable[[np.ndarray, float], np.ndarray]
    weight_names: tuple[str, ...] = ("bias",)

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        shape = (n_steps, n_envs)
        return (
            Field("actions", (*shape, *self.action_space.shape), np.dtype(self.action_space.dtype).str),
            Field("seen", (*shape, 3), "<i4"),
            Field("biases", shape, "<f8"),
            Field("bootstraps", (*shape, 3), "<i4"),
            Field("last", (n_envs, 4), "<i4"),
        )

    def build(self, n_envs: int) -> RecordingActor:
        return RecordingActor(self.act)


def infos_of(report: ChunkReport) -> list[InfoRecord]:
    assert report.infos is not None
    return unpack(report.infos)


# A sampler between two real queues


@dataclass
class Bench:
    """
    A sampler with its queues, and the learner's hands.

    :param envs: its environments
    :param act: its actor's rule
    :param squash_output: as in the settings
    :param index: number of the sampler, of two
    :param vectorized: puts its environments into one object
    """

    envs: Sequence[Clockwork] = field(default_factory=lambda: [Clockwork()])
    act: Callable[[np.ndarray, float], np.ndarray] = act_the_same
    squash_output: bool = False
    index: int = 0
    vectorized: Callable[[Sequence[Clockwork]], gym.vector.VectorEnv] | None = None

    def __post_init__(self) -> None:
        spec = RecordingActorSpec(self.envs[0].action_space, self.act)
        layout = chunk_layout(T, len(self.envs), self.envs[0].observation_space, spec.fields(T, len(self.envs)))
        self.geometry = ExperienceGeometry(layout, n_samplers=2, n_slots=2)
        self.memory = PrivateMemory(self.geometry.nbytes)
        self.queues = open_queues(
            QueuePlan(WEIGHTS, self.geometry),
            lambda nbytes: self.memory if nbytes == self.memory.nbytes else PrivateMemory(nbytes),
        )
        self.sampler = Sampler(self.index)
        vectorized = self.vectorized
        self.sampler.build_envs(
            [lambda env=env: env for env in self.envs]
            if vectorized is None
            else [lambda n: vectorized(self.envs)] * len(self.envs)
        )
        self.sampler.configure(
            CollectionSettings(
                actor=spec,
                queues=self.queues.sampler_end,
                squash_output=self.squash_output,
            )
        )
        self.n_tickets = 0
        self.publish(0)

    def publish(self, version: int) -> None:
        """Weights that tell their version."""
        self.queues.policy.publish(version, {"bias": np.array(10.0 + version)})
        self.queues.control.announce(version)

    def collect(
        self,
        n_steps: int = T,
        slot: int = 0,
        run: int | None = None,
        version: int | None = None,
        max_policy_lag: int | None = None,
        all_infos: bool = False,
    ) -> ChunkReport:
        number = self.n_tickets
        self.n_tickets += 1
        run = self.queues.control.run if run is None else run
        infos = InfoSelection(every_step=all_infos)
        report = self.sampler.collect(Ticket(number, run, slot, n_steps, version, max_policy_lag, infos))
        assert (report.ticket, report.slot) == (number, slot)
        assert report.seal is None or report.seal.ticket == number
        return report

    def chunk(self, report: ChunkReport) -> Chunk:
        assert report.seal is not None
        return self.queues.chunks.chunk(self.index, report.slot, report.seal)

    def collect_chunk(self, **ticket: Any) -> Chunk:
        return self.chunk(self.collect(**ticket))


def clocks(chunk: Chunk) -> np.ndarray:
    """``[n_steps + 1, B, 3]``."""
    return first_of(chunk.observations)[: chunk.n_steps + 1].copy()


def assert_rows_line_up(chunk: Chunk, lengths: Sequence[int]) -> None:
    """Row t + 1 is what step t led to, according to what the observations say of themselves."""
    rows = clocks(chunk)
    for step in range(chunk.n_steps):
        for env, length in enumerate(lengths):
            number, episode, at = rows[step, env]
            ends = at + 1 == length
            assert number == env
            assert rows[step + 1, env].tolist() == [env, *([episode + 1, 0] if ends else [episode, at + 1])]
            assert chunk.rewards[step, env] == 100.0 * episode + at + 1
            assert chunk.dones[step, env] == ends
    np.testing.assert_array_equal(chunk.episode_starts[1 : chunk.n_steps + 1], rows[1:, :, 2] == 0)
    assert (chunk.episode_starts[0] >= (rows[0, :, 2] == 0)).all()
    np.testing.assert_array_equal(chunk.arrays["seen"][: chunk.n_steps], rows[:-1])
    np.testing.assert_array_equal(chunk.arrays["last"][:, :3], rows[-1])


@pytest.mark.parametrize("as_dict", [False, True])
def test_rows_of_consecutive_chunks_line_up(as_dict: bool) -> None:
    lengths = [1, 5, 100]
    bench = Bench([Clockwork(env, length, as_dict=as_dict) for env, length in enumerate(lengths)])
    last = np.array([[env, 0, 0] for env in range(B)])
    for number, n_steps in enumerate([T, 3, 1, T, T, 2]):
        chunk = bench.collect_chunk(n_steps=n_steps, slot=number % 2)
        assert chunk.n_steps == n_steps
        assert_rows_line_up(chunk, lengths)
        np.testing.assert_array_equal(chunk.episode_starts[0], clocks(chunk)[0, :, 2] == 0)
        np.testing.assert_array_equal(clocks(chunk)[0], last)
        assert (chunk.arrays["last"][:, 3] == n_steps).all()
        last = clocks(chunk)[-1]
    assert [env.n_steps for env in bench.envs] == [T + 3 + 1 + T + T + 2] * B


def test_all_parts_of_a_dict_observation_line_up() -> None:
    chunk = Bench([Clockwork(as_dict=True)]).collect_chunk()
    assert isinstance(chunk.observations, dict)
    np.testing.assert_array_equal(chunk.observations["step"], chunk.observations["clock"][:, :, 2])


def test_sampler_fills_its_own_slots_only() -> None:
    bench = Bench(index=1)
    report = bench.collect(slot=1)
    assert_rows_line_up(bench.chunk(report), [5])
    for sampler, slot in [(0, 0), (0, 1), (1, 0)]:
        assert not any(bench.geometry.slot(bench.memory.view, sampler, slot))


def test_report_says_what_lies_in_the_slot() -> None:
    bench = Bench()
    bench.publish(3)
    assert bench.collect(n_steps=5).seal == Seal(ticket=0, version=3, n_steps=5)


# Abandoned chunks


def test_chunk_is_abandoned_at_the_next_step_when_another_run_begins() -> None:
    bench = Bench([Clockwork(on_step=lambda n: bench.queues.control.start_run() if n == 2 else None)])
    report = bench.collect(all_infos=True)
    assert report.seal is None
    assert bench.envs[0].n_steps == 3
    with pytest.raises(TransportError):
        bench.queues.chunks.chunk(0, report.slot, Seal(report.ticket, 0, T))


@pytest.mark.parametrize("at", range(7))
def test_environments_continue_where_an_abandoned_chunk_left_them(at: int) -> None:
    # In steps 4 and 5 the episode ends and the next one begins.
    lengths = [5, 5]
    bench = Bench(
        [
            Clockwork(0, on_step=lambda n: bench.queues.control.start_run() if n == at else None),
            Clockwork(1),
        ]
    )
    assert bench.collect().seal is None
    chunk = bench.collect_chunk(slot=1)
    n_steps = at + 1
    assert clocks(chunk)[0].tolist() == [[env, n_steps // 5, n_steps % 5] for env in range(2)]
    assert_rows_line_up(chunk, lengths)


def test_chunk_whose_last_step_another_run_interrupts_is_abandoned() -> None:
    bench = Bench([Clockwork(on_step=lambda n: bench.queues.control.start_run() if n == T - 1 else None)])
    assert bench.collect().seal is None
    assert bench.envs[0].n_steps == T


def test_slot_of_an_abandoned_chunk_does_not_keep_its_old_seal() -> None:
    bench = Bench([Clockwork(on_step=lambda n: bench.queues.control.start_run() if n == T + 2 else None)])
    finished = bench.collect().seal
    assert finished is not None
    assert bench.collect().seal is None
    with pytest.raises(TransportError):
        bench.queues.chunks.chunk(0, 0, finished)


@pytest.mark.parametrize("run", [0, 2])
def test_ticket_of_another_run_makes_no_step_and_touches_no_slot(run: int) -> None:
    bench = Bench()
    bench.queues.control.start_run()
    report = bench.collect(run=run)
    assert report.seal is None
    assert bench.envs[0].episode == -1
    assert not any(bench.memory.view)


# Policy versions


def test_newest_version_at_the_beginning_of_a_chunk_is_used_for_all_of_it() -> None:
    bench = Bench([Clockwork(on_step=lambda n: bench.publish(n + 1))])
    for version in (0, T, 2 * T):
        report = bench.collect()
        assert report.seal is not None
        assert report.seal.version == version
        assert (bench.chunk(report).arrays["biases"] == 10.0 + version).all()


def test_version_that_is_asked_for_is_used_though_there_is_a_newer_one() -> None:
    bench = Bench()
    bench.publish(1)
    for version in (0, 0, 1, 0):
        report = bench.collect(version=version)
        assert report.seal is not None
        assert report.seal.version == version
        assert (bench.chunk(report).arrays["biases"] == 10.0 + version).all()


def test_version_that_is_not_kept_is_an_error_and_no_step_is_made() -> None:
    bench = Bench()
    bench.publish(1)
    bench.publish(2)
    with pytest.raises(TransportError, match=r"version 0 cannot be read .* \[1, 2\]"):
        bench.collect(version=0)
    assert bench.envs[0].n_steps == 0
    assert bench.collect_chunk(version=2).n_steps == T


@pytest.mark.parametrize(("max_policy_lag", "n_steps"), [(1, 2), (2, 4), (3, 6), (4, T), (None, T)])
def test_chunk_is_cut_short_once_its_policy_is_too_old(max_policy_lag: int | None, n_steps: int) -> None:
    # Version 1 is there after step 1, version 2 after step 3, and so on.
    bench = Bench([Clockwork(on_step=lambda n: bench.publish((n + 1) // 2) if n % 2 else None)])
    report = bench.collect(max_policy_lag=max_policy_lag)
    assert report.seal == Seal(0, 0, n_steps)
    assert_rows_line_up(bench.chunk(report), [5])
    assert bench.envs[0].n_steps == n_steps


def test_chunk_has_a_step_however_fast_the_learner_is() -> None:
    bench = Bench([Clockwork(on_step=lambda n: bench.publish(10 * n))])
    for number in range(4):
        chunk = bench.collect_chunk(max_policy_lag=1)
        assert chunk.n_steps == (2 if number == 0 else 1)
        assert_rows_line_up(chunk, [5])


def test_chunk_of_slow_environments_is_cut_short_if_its_policy_may_get_old() -> None:
    bench = Bench([Clockwork(length=100)])
    bench.queues.control.limit_chunks(1e-9)
    assert [bench.collect_chunk(max_policy_lag=5).n_steps for _ in range(3)] == [1, 1, 1]
    assert bench.collect_chunk(max_policy_lag=None).n_steps == T
    for no_limit in (1e6, 0.0):
        bench.queues.control.limit_chunks(no_limit)
        assert bench.collect_chunk(max_policy_lag=5).n_steps == T


# Infos


@pytest.mark.parametrize("truncates", [False, True])
def test_infos_of_episode_ends_are_passed_on(truncates: bool) -> None:
    lengths = [3, 4]
    bench = Bench([Clockwork(env, length, truncates) for env, length in enumerate(lengths)])
    infos = infos_of(bench.collect())
    assert [(step, env) for step, env, _ in infos] == [(2, 0), (3, 1), (5, 0), (7, 1)]
    for step, env, info in infos:
        assert info["n"] == step + 1
        assert info["TimeLimit.truncated"] == truncates
        assert info["terminal_observation"].tolist() == [env, step // lengths[env], lengths[env]]
        assert info["episode"]["l"] == lengths[env]


def test_all_infos_are_passed_on_if_asked_for() -> None:
    bench = Bench([Clockwork(env, length) for env, length in enumerate([3, 100])])
    infos = infos_of(bench.collect(all_infos=True))
    assert [(step, env) for step, env, _ in infos] == [(step, env) for step in range(T) for env in range(2)]
    assert [info["n"] for _, _, info in infos] == [step + 1 for step in range(T) for _ in range(2)]
    assert [(step, env) for step, env, info in infos if "episode" in info] == [(2, 0), (5, 0)]


@pytest.mark.parametrize("length", [1, 100])
def test_infos_are_as_they_were_at_their_step(length: int) -> None:
    class Updating(Clockwork):
        """Gives the same dictionary and list at every step."""

        def __init__(self, length: int) -> None:
            super().__init__(length=length)
            self.info: dict[str, Any] = {"numbers": []}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            *result, _ = super().step(action)
            self.info["numbers"].append(self.n_steps)
            return (*result, self.info)

    infos = infos_of(Bench([Updating(length=length)]).collect(all_infos=True))
    assert [len(info["numbers"]) for _, _, info in infos] == list(range(1, T + 1))


@pytest.mark.parametrize("all_infos", [False, True])
def test_actor_bootstraps_exactly_at_the_last_observations_of_truncated_episodes(all_infos: bool) -> None:
    bench = Bench([Clockwork(0, 3, truncates=True), Clockwork(1, 3), Clockwork(2, 4, truncates=True)])
    bootstraps = bench.collect_chunk(all_infos=all_infos).arrays["bootstraps"]
    expected = np.full((T, B, 3), -1)
    expected[[2, 5], 0] = [[0, 0, 3], [0, 1, 3]]
    expected[[3, 7], 2] = [[2, 0, 4], [2, 1, 4]]
    np.testing.assert_array_equal(bootstraps, expected)


# Failures


def test_environment_that_fails_makes_the_next_chunk_begin_with_a_reset() -> None:
    def fail(n_steps: int) -> None:
        if n_steps == 2 and not failed:
            failed.append(True)
            raise ZeroDivisionError("no wheel")

    failed: list[bool] = []
    bench = Bench([Clockwork(0), Clockwork(1, on_step=fail)])
    with pytest.raises(ZeroDivisionError, match="no wheel"):
        bench.collect()
    assert [env.n_steps for env in bench.envs] == [3, 2]
    chunk = bench.collect_chunk()
    assert clocks(chunk)[0].tolist() == [[0, 1, 0], [1, 1, 0]]
    assert_rows_line_up(chunk, [5, 5])


def test_environment_that_fails_in_lockstep_makes_the_next_chunk_begin_with_a_reset() -> None:
    def fail(n_steps: int) -> None:
        if n_steps == 3 and not failed:
            failed.append(True)
            raise ZeroDivisionError("no wheel")

    failed: list[bool] = []
    bench = Bench([Clockwork(0), Clockwork(1, on_step=fail)])
    Reset([None] * 2, [{}] * 2).run(bench.sampler)
    step = Step(np.zeros((2, 2), np.float32))
    for _ in range(3):
        step.run(bench.sampler)
    assert clocks(bench.collect_chunk(n_steps=0))[0].tolist() == [[0, 0, 3], [1, 0, 3]]
    with pytest.raises(ZeroDivisionError):
        step.run(bench.sampler)
    chunk = bench.collect_chunk()
    assert clocks(chunk)[0].tolist() == [[0, 1, 0], [1, 1, 0]]
    assert_rows_line_up(chunk, [5, 5])


def test_environment_that_fails_to_reset_is_reset_again_by_the_next_chunk() -> None:
    class Stuck(Clockwork):
        is_stuck = False

        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            if self.is_stuck:
                raise ZeroDivisionError("no wheel")
            return super().reset(**kwargs)

    stuck = Stuck(1)
    bench = Bench([Clockwork(0), stuck])
    bench.collect(n_steps=3)
    stuck.is_stuck = True
    with pytest.raises(ZeroDivisionError):
        Reset([None] * 2, [{}] * 2).run(bench.sampler)
    stuck.is_stuck = False
    chunk = bench.collect_chunk()
    assert clocks(chunk)[0].tolist() == [[0, 2, 0], [1, 1, 0]]
    assert_rows_line_up(chunk, [5, 5])


def test_environments_are_reset_once_and_not_by_every_chunk() -> None:
    bench = Bench([Clockwork(length=100)])
    bench.sampler.stack.reset([None], [{}])
    for _ in range(3):
        bench.collect()
    assert bench.envs[0].episode == 0


def test_reset_between_two_chunks_starts_new_episodes() -> None:
    bench = Bench([Clockwork(env) for env in range(2)])
    bench.collect(n_steps=3)
    bench.sampler.stack.reset([None] * 2, [{}] * 2)
    chunk = bench.collect_chunk()
    assert clocks(chunk)[0].tolist() == [[0, 1, 0], [1, 1, 0]]
    assert_rows_line_up(chunk, [5, 5])


def test_sampler_says_what_was_forgotten() -> None:
    sampler = Sampler(0)
    ticket = Ticket(0, 0, 0, T, None, None, False)
    with pytest.raises(RuntimeError, match="no environments"):
        sampler.envs  # noqa: B018
    with pytest.raises(RuntimeError, match="before it was told how"):
        sampler.collect(ticket)
    bench = Bench()
    bench.sampler.close()
    with pytest.raises(RuntimeError, match="closed"):
        bench.sampler.envs  # noqa: B018
    with pytest.raises(RuntimeError):
        bench.sampler.collect(ticket)


# Actions


def given(bench: Bench) -> np.ndarray:
    """What the first environment was given, ``[n_steps, ...]``."""
    return np.array(bench.envs[0].actions)


class Bounded(Clockwork):
    action_space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))


def test_actions_are_clipped_for_the_environment_but_not_in_the_chunk() -> None:
    bench = Bench(
        [Bounded()], act=lambda observations, _: np.array([[1.5, -0.25], [-3.0, 9.0]])[observations[:, 2] % 2]
    )
    actions = bench.collect_chunk(n_steps=2).actions
    assert actions[:2, 0].tolist() == [[1.5, -0.25], [-3.0, 9.0]]
    assert given(bench).tolist() == [[1.0, 0.0], [-1.0, 4.0]]


def test_squashed_actions_are_rescaled_for_the_environment_but_not_in_the_chunk() -> None:
    squashed = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.5, -0.5]])
    bench = Bench([Bounded()], act=lambda observations, _: squashed[observations[:, 2]], squash_output=True)
    actions = bench.collect_chunk(n_steps=4).actions
    assert actions[:4, 0].tolist() == squashed.tolist()
    assert given(bench).tolist() == [[-1.0, 0.0], [0.0, 2.0], [1.0, 4.0], [0.5, 1.0]]


@pytest.mark.parametrize(
    ("space", "squash_output"),
    [
        (spaces.Discrete(1000), False),
        (spaces.MultiDiscrete([1000, 1000]), False),
        (spaces.MultiBinary(11), False),
        (spaces.Box(-1e3, 1e3, (2,), np.float32), False),
        (spaces.Box(-1e3, 1e3, (2,), np.float32), True),
    ],
    ids=str,
)
def test_environments_may_keep_the_actions_that_they_are_given(space: spaces.Space, squash_output: bool) -> None:
    class Keeping(Clockwork):
        action_space = space
        #: copies of the actions that it was given
        copies: list[Any]

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.copies.append(np.array(action))
            return super().step(action)

    env = Keeping(length=100)
    env.copies = []
    n_bits = 2 ** np.arange(space.shape[0] if space.shape else 1)
    bench = Bench(
        [env],
        # Different actions at every step.
        act=lambda observations, _: (
            observations[:, 2:] // n_bits % 2 if isinstance(space, spaces.MultiBinary) else observations[:, 2:] + n_bits
        ).reshape(len(observations), *space.shape),
        squash_output=squash_output,
    )
    # All into the same slot, whose memory the actor uses again.
    for _ in range(3):
        bench.collect()
    assert len(np.unique(env.copies, axis=0)) == 3 * T
    np.testing.assert_array_equal(given(bench), env.copies)


def test_each_environment_gets_its_own_action() -> None:
    bench = Bench([Clockwork(env) for env in range(B)], act=lambda observations, _: 0.1 * observations[:, [0, 2]])
    actions = bench.collect_chunk().actions
    for number, env in enumerate(bench.envs):
        np.testing.assert_array_equal(env.actions, actions[:, number])
