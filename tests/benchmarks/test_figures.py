"""The figures of the report: what is measured and trained for them, that it can continue, and what is drawn of it."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from returns_helpers import is_picture
from stable_baselines3 import PPO

from benchmarks import slow_envs
from benchmarks.contenders import AsyncContender, VecEnvContender, running
from benchmarks.figures import __main__ as command
from benchmarks.figures import iteration_time, plan, walle_report
from benchmarks.figures import make_figures as make
from benchmarks.figures.figures_settings import AGENTS, Agent, FiguresSettings, Workload, default_n_samplers
from benchmarks.figures.figures_tables import overlap_table, returns_table, samplers_table
from benchmarks.figures.iteration_time import IterationClock, IterationTime, Timing
from benchmarks.figures.make_figures import FiguresOutcome, make_figures
from benchmarks.figures.plan import timings, trainings
from benchmarks.slow_envs import ElsewhereEnv, SlowEnv, Slowness
from sb3_walle.cli.arguments import UsageError, run_command_line

TINY = FiguresSettings(
    "CartPole-v1",
    step_latency=1e-4,
    n_samplers=(1, 2),
    overlap_n_samplers=2,
    samples_per_iteration=64,
    iterations=2,
    repeats=1,
    learning_n_samplers=(2,),
    timesteps=128,
    n_seeds=1,
    n_bins=2,
)
FIGURES = (
    "figure_3_return_by_time",
    "figure_4_collection_time",
    "figure_5_speed_up",
    "figure_6_shares",
    "figure_7_learning_time",
    "return_by_steps",
    "overlap",
)
NAN = float("nan")
SLOW = "a simulator elsewhere, 0.1 ms a step"


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def iteration(n_samplers: int, collection: float, learning: float, workload: str = "w", **others: Any) -> IterationTime:
    row = IterationTime(workload, f"AsyncPPO, {n_samplers} x 1", "sync", n_samplers, 1, 1, collection, learning)
    return replace(row, **others)


class InlineContender(AsyncContender):
    """Starts no processes."""

    def create(self, *args: Any, **kwargs: Any) -> PPO:
        return super().create(*args, **{"backend": "inline", **kwargs})


# From beginning to end


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FiguresOutcome, Path]:
    directory = tmp_path_factory.mktemp("figures")

    with pytest.MonkeyPatch.context() as patch:
        # Compiling and starting take longer than all else together.
        patch.setattr(Agent, "learner", "eager")
        patch.setattr(plan, "AsyncContender", InlineContender)
        patch.setattr(plan, "VEC_ENVS", ("DummyVecEnv",))
        return make_figures(TINY, directory), directory


def test_every_figure_is_drawn_and_has_a_table(made: tuple[FiguresOutcome, Path]) -> None:
    outcome, directory = made
    assert not outcome.interrupted
    assert sorted(image.stem for image in outcome.images) == sorted(FIGURES)
    for name in FIGURES:
        assert is_picture(directory / f"{name}.png")
        assert csv_rows(directory / f"{name}.csv")
    assert (directory / "report.md").read_text() == outcome.report


def test_everything_is_measured(made: tuple[FiguresOutcome, Path]) -> None:
    _, directory = made
    rows = csv_rows(directory / "iterations.csv")
    workloads = {"CartPole-v1", SLOW}
    contenders = {
        ("AsyncPPO, 1 x 1", "sync"),
        *(("AsyncPPO, 2 x 1", mode) for mode in ("sync", "pipelined", "free")),
        ("PPO, DummyVecEnv(2)", "sync"),
    }
    found = [(row["workload"], row["contender"], row["mode"]) for row in rows]
    assert set(found) == {(workload, *contender) for workload in workloads for contender in contenders}
    assert all(found.count(each) == TINY.iterations for each in set(found))
    assert all(float(row["collection_seconds"]) > 0 and float(row["learning_seconds"]) > 0 for row in rows)
    learned = {"CartPole-v1", "CartPole-v1, 0.1 ms a step"}
    trained = {(row["seed"], row["contender"]) for row in csv_rows(directory / "returns.csv")}
    assert trained == {("0", f"{name}, N=2") for name in learned}


def test_report_says_what_the_figures_show(made: tuple[FiguresOutcome, Path]) -> None:
    outcome, _ = made
    lines = outcome.report.splitlines()
    assert [line for line in lines if line.startswith("## Coll")] == [
        f"## Collection and learning: {name}" for name in ("CartPole-v1", SLOW)
    ]
    assert any(line.startswith("| AsyncPPO, 2 x 1, pipelined ") for line in lines)
    assert any(line.startswith("| CartPole-v1, 0.1 ms a step, N=2 ") for line in lines)
    assert max(map(len, lines)) <= 140


def test_the_same_command_continues(made: tuple[FiguresOutcome, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, directory = made
    monkeypatch.setattr(plan, "VEC_ENVS", ("DummyVecEnv",))
    monkeypatch.setattr(Timing, "measure", None)
    monkeypatch.setattr(make, "train_once", None)
    assert make_figures(TINY, directory) == outcome


# Continuing


class FakeWork:
    """Instead of measuring, training and drawing, results that are known; Ctrl-C may end it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupted_at: int | None = None) -> None:
        self.done: list[Any] = []
        self.interrupted_at = interrupted_at
        monkeypatch.setattr(Timing, "measure", lambda timing, settings: self.measure(timing, settings))
        monkeypatch.setattr(make, "train_once", self.train)
        monkeypatch.setattr(make, "check_settings", lambda settings: None)
        for name in dir(make):
            if name.startswith("draw_"):
                monkeypatch.setattr(make, name, lambda *arguments: None)

    def measure(self, timing: Timing, settings: FiguresSettings) -> list[IterationTime]:
        self._begin(timing.run)
        workload, contender, mode, repeat = timing.run
        return [
            IterationTime(workload, contender, mode, timing.contender.n_envs, repeat, number, 1 / 3, 2 / 3)
            for number in range(1, settings.iterations + 1)
        ]

    def train(self, trainee: Any, settings: Any, seed: int, on_row: Callable[[Any], object]) -> None:
        for number, timesteps in enumerate(settings.bin_ends):
            if number == 1:
                # Some rows are there already.
                self._begin((seed, trainee.name))
            on_row(make.BinReturn(seed, trainee.name, timesteps, number / 3, 1, number + 0.1))

    def _begin(self, run: Any) -> None:
        if len(self.done) == self.interrupted_at:
            raise KeyboardInterrupt
        self.done.append(run)


def test_repeats_and_seeds_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    work = FakeWork(monkeypatch)
    settings = replace(TINY, repeats=2, n_seeds=2)
    make_figures(settings, tmp_path)
    n_timings = len(list(timings(settings)))
    assert [run[3] for run in work.done[:n_timings]] == [1] * (n_timings // 2) + [2] * (n_timings // 2)
    # Those that take long come last.
    assert [seed for seed, _ in work.done[n_timings:]] == [0, 1] * len(settings.learning_workloads)


@pytest.mark.parametrize("interrupted_at", [0, 1, 7, 12, 13])
def test_nothing_is_done_twice_after_an_interruption(
    interrupted_at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = FakeWork(monkeypatch, interrupted_at)
    outcome = make_figures(TINY, tmp_path)
    assert outcome.interrupted and bool(outcome.images) == (interrupted_at > 0)
    second = FakeWork(monkeypatch)
    assert not make_figures(TINY, tmp_path).interrupted
    everything = [timing.run for timing in timings(TINY)] + [(seed, each.name) for seed, each in trainings(TINY)]
    assert first.done + second.done == everything
    assert len(csv_rows(tmp_path / "returns.csv")) == len(list(trainings(TINY))) * TINY.n_bins


def test_more_of_the_same_can_be_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeWork(monkeypatch)
    make_figures(TINY, tmp_path)
    more = FakeWork(monkeypatch)
    make_figures(replace(TINY, repeats=2, n_seeds=3, n_samplers=(1, 2, 4)), tmp_path)
    assert {run[3] for run in more.done if len(run) == 4 and run[1] != "AsyncPPO, 4 x 1"} == {2}
    assert {run[0] for run in more.done if len(run) == 2} == {1, 2}


def test_results_of_other_settings_are_not_mixed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeWork(monkeypatch)
    make_figures(TINY, tmp_path)
    with pytest.raises(UsageError, match=r"samples_per_iteration was 64 and is 32"):
        make_figures(replace(TINY, samples_per_iteration=32), tmp_path)


def test_progress_says_what_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeWork(monkeypatch, interrupted_at=7)
    make_figures(TINY, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert "iterations, CartPole-v1, AsyncPPO, 2 x 1, free, repeat 1" in lines
    FakeWork(monkeypatch)
    make_figures(TINY, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("% of the steps have been done before")
    assert "training, CartPole-v1, N=2, seed 0" in lines


# Time of an iteration


def test_clock_tells_collection_from_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = IterationClock(warm_up=1, iterations=2)
    # Of each iteration: when the rollout begins and when it ends, and the update with it.
    times = iter([0.0, 5.0, 100.0, 101.0, 103.0, 104.5, 109.0])
    monkeypatch.setattr(iteration_time.time, "perf_counter", lambda: next(times))
    for _ in range(3):
        clock._on_rollout_start()
        clock._on_rollout_end()
    with pytest.raises(IterationClock.Done):
        clock._on_rollout_start()
    assert clock.seconds == [(1.0, 2.0), (1.5, 4.5)]


@pytest.mark.parametrize("contender", [AsyncContender(2, 1, "eager"), VecEnvContender("DummyVecEnv", 2)])
def test_iterations_have_the_samples_that_are_asked_for(contender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = []

    def noted(clock: IterationClock) -> None:
        collected.append(clock.model.rollout_buffer.buffer_size * clock.model.n_envs)

    monkeypatch.setattr(IterationClock, "_on_rollout_end", lambda clock: noted(clock) or clock._ends.append(0.0))
    timing = Timing(Workload("CartPole-v1"), contender, "sync", 3)
    rows = timing.measure(TINY)
    assert [(row.repeat, row.iteration) for row in rows] == [(3, 1), (3, 2)]
    assert collected == [64] * 3
    assert timing.n_timesteps(TINY) == sum(collected)


@pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)
def test_every_agent_learns(agent: Agent) -> None:
    """With an objective that SB3's PPO does not have, if need be."""
    settings = replace(TINY, agent=agent, iterations=1)
    for contender in (InlineContender(2, 1), VecEnvContender("DummyVecEnv", 2)):
        (row,) = Timing(Workload("CartPole-v1"), contender, "sync", 1).measure(settings)
        assert row.learning > 0
    # Nothing is compiled before there is something to learn from.
    contender = AsyncContender(2, 1, agent.learner)
    with running(contender, "CartPole-v1", backend="inline", **agent.arguments(contender, n_steps=8)) as model:
        assert model.gamma == agent.ppo["gamma"]


# Slow environments


def test_slow_env_waits_for_what_is_left_of_a_steps_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = 10.0, []
    seconds = iter([0.0, 0.125, 0.5])

    class BusyEnv(gym.Wrapper):
        def step(self, action: Any) -> Any:
            nonlocal now
            now += next(seconds)
            return self.env.step(action)

    monkeypatch.setattr(slow_envs.time, "perf_counter", lambda: now)
    monkeypatch.setattr(slow_envs.time, "sleep", waited.append)
    env = SlowEnv(BusyEnv(gym.make("CartPole-v1")), step_latency=0.25)
    env.reset(seed=0)
    for _ in range(3):
        observation, reward, *_ = env.step(0)
        assert observation in env.observation_space and reward == 1.0
    assert waited == [0.25, 0.125, 0.0]


def test_env_elsewhere_looks_like_the_original_and_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(slow_envs.time, "perf_counter", lambda: 10.0)
    monkeypatch.setattr(slow_envs.time, "sleep", waited.append)
    original = gym.make("CartPole-v1")
    env = ElsewhereEnv(original, step_latency=0.25)
    assert (env.observation_space, env.action_space) == (original.observation_space, original.action_space)
    observations = [env.reset()[0]]
    for step in range(1, 1001):
        observation, _, terminated, truncated, _ = env.step(0)
        observations.append(observation)
        assert not terminated and truncated == (step == 1000)
    assert all(observation in env.observation_space for observation in observations)
    assert len(np.unique(observations, axis=0)) > 50
    assert waited == [0.25] * 1000


@pytest.mark.parametrize("kind", [SlowEnv, ElsewhereEnv, None])
@pytest.mark.parametrize("contender", [AsyncContender, VecEnvContender])
def test_contenders_have_slow_environments(contender: Any, kind: type[gym.Env] | None) -> None:
    shape = (2, 1) if contender is AsyncContender else ("DummyVecEnv", 2)
    backend: dict[str, Any] = {"backend": "inline"} if contender is AsyncContender else {}
    slowness = None if kind is None else Slowness(1e-4, elsewhere=kind is ElsewhereEnv)
    with running(contender(*shape, slowness=slowness), "CartPole-v1", n_steps=8, **backend) as model:
        env = model.get_env()
        assert env is not None
        assert env.env_is_wrapped(SlowEnv) == [kind is SlowEnv] * 2
        is_elsewhere = [unwrapped is None for unwrapped in env.get_attr("spec")]
        assert is_elsewhere == [kind is ElsewhereEnv] * 2


# Tables


def test_speed_up_is_over_one_sampler() -> None:
    times = [iteration(1, 8.0, 2.0), iteration(1, 12.0, 2.0), iteration(4, 2.0, 2.0), iteration(4, 4.0, 2.0)]
    one, four = samplers_table(times)
    assert (one.n_samplers, four.n_samplers, four.n_iterations) == (1, 4, 2)
    assert (one.speed_up.median, one.speed_up.low) == pytest.approx((1.0417, 10 / 12), abs=1e-3)
    assert (four.speed_up.low, four.speed_up.high) == (2.5, 5.0)
    assert (four.learning_share.low, four.learning_share.high) == pytest.approx((1 / 3, 1 / 2))
    assert one.report_speed_up == 1.0 and np.isnan(four.report_speed_up)


def test_lowest_number_is_taken_as_ideal_without_one_sampler() -> None:
    two, four = samplers_table([iteration(2, 6.0, 1.0), iteration(4, 4.0, 1.0)])
    assert (two.speed_up.median, four.speed_up.median) == (2.0, 3.0)


def test_workloads_and_overlap_are_kept_apart() -> None:
    times = [
        iteration(1, 6.0, 1.0),
        iteration(1, 60.0, 1.0, workload="slow"),
        iteration(1, 0.5, 1.0, mode="pipelined"),
        iteration(1, 5.0, 3.0, contender="PPO, DummyVecEnv(1)"),
        iteration(2, 3.0, 1.0),
    ]
    assert [(row.workload, row.n_samplers) for row in samplers_table(times)] == [("w", 1), ("w", 2), ("slow", 1)]
    overlap = {(row.workload, row.contender, row.mode): row.seconds.median for row in overlap_table(times, n_envs=1)}
    assert overlap == {
        ("w", "AsyncPPO, 1 x 1", "sync"): 7.0,
        ("slow", "AsyncPPO, 1 x 1", "sync"): 61.0,
        ("w", "AsyncPPO, 1 x 1", "pipelined"): 1.5,
        ("w", "PPO, DummyVecEnv(1)", "sync"): 8.0,
    }


def test_returns_of_bins_without_an_episode_are_left_out() -> None:
    settings = replace(TINY, step_latency=0.0, learning_n_samplers=(1, 2), timesteps=256, n_bins=4)
    curves = {"CartPole-v1, N=1": np.array([[NAN, 1.0, NAN, 4.0], [NAN, 3.0, 5.0, 8.0]])}
    seconds = {"CartPole-v1, N=1": np.array([[60.0, 120.0, 180.0, 240.0]] * 2)}
    rows = returns_table(settings, curves, seconds)
    assert [(row.timesteps, row.minutes.median, row.mean_return.median) for row in rows] == [
        (128, 2.0, 2.0),
        (192, 3.0, 5.0),
        (256, 4.0, 6.0),
    ]
    assert (rows[-1].mean_return.low, rows[-1].mean_return.high, rows[-1].n_seeds) == (4.0, 8.0, 2)


def test_the_reports_numbers_agree_with_each_other() -> None:
    """The speed-up is that of collection, and the shares follow from both times, within what a figure shows."""
    for n_samplers, speed_up in walle_report.SPEED_UP.items():
        collection, learning = (
            seconds[n_samplers] for seconds in (walle_report.COLLECTION_SECONDS, walle_report.LEARNING_SECONDS)
        )
        assert walle_report.COLLECTION_SECONDS[1] / collection == pytest.approx(speed_up, rel=0.02)
        assert learning / (learning + collection) == pytest.approx(walle_report.LEARNING_SHARE[n_samplers], abs=0.06)


# What is asked for


@pytest.mark.parametrize(("n_cpus", "highest"), [(1, 20), (2, 20), (19, 20), (20, 40), (64, 80), (192, 320)])
def test_there_are_more_samplers_than_cpus(n_cpus: int, highest: int) -> None:
    numbers = default_n_samplers(n_cpus)
    assert numbers[:6] == (1, 2, 5, 8, 10, 20) and numbers[-1] == highest


def test_every_number_of_samplers_has_as_many_samples() -> None:
    settings = FiguresSettings()
    for number in (1, 2, 5, 8, 10, 20):
        assert settings.n_steps(number) * number == 20_000


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--n-samplers", "1", "3000"], "4000 samples an iteration are too few for 3000 samplers: at least 6000"),
        (["--timesteps", "60"], "60 timesteps are too few for 4 bins in which each of 20 samplers"),
        (["--step-latency", "5"], "'5' is not a time"),
        (["--step-latency", "fast"], "'fast' is not a time"),
        (["--agent", "eve"], "eve"),
    ],
)
def test_bad_options(options: list[str], mentioned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["CartPole-v1", "--quick", "--out", str(tmp_path / "f"), "--n-samplers", "1", "20", *options]
    try:
        code = run_command_line(command.build_parser(), argv)
    except SystemExit as exit_:
        code = exit_.code
    error = capsys.readouterr().err
    assert code == 2 and mentioned in error and len(error.splitlines()) == 1
    assert not (tmp_path / "f").exists()


def test_command_asks_for_what_the_options_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fake(settings: FiguresSettings, directory: Path) -> FiguresOutcome:
        asked.append((settings, directory))
        return FiguresOutcome("the report", (directory / "figure.png",), interrupted=len(asked) == 2)

    monkeypatch.setattr(command, "make_figures", fake)
    assert run_command_line(command.build_parser(), ["--out", str(tmp_path)]) == 0
    assert asked[0] == (FiguresSettings(), tmp_path)
    options = "--quick --n-samplers 1 4 4 --step-latency 20ms --seeds 7 --agent ppo"
    assert run_command_line(command.build_parser(), ["CartPole-v1", "--out", str(tmp_path), *options.split()]) == 130
    settings = asked[1][0]
    assert (settings.env_id, settings.n_samplers, settings.step_latency) == ("CartPole-v1", (1, 4), 0.02)
    assert (settings.n_seeds, settings.agent) == (7, AGENTS["ppo"])
    assert settings.samples_per_iteration < FiguresSettings.samples_per_iteration
    out = capsys.readouterr().out
    assert "the report" in out and "figure.png" in out and "Interrupted: the same command continues" in out
