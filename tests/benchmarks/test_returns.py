"""The comparison of returns: that bins have the episodes that ended in them, and that it can be continued."""

import csv
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from returns_helpers import ASYNC_NAME, PPO_NAME, TINY, cells_of, is_picture
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.contenders import Trainee
from benchmarks.returns import __main__ as command
from benchmarks.returns import comparison as returns
from benchmarks.returns.comparison import compare_returns
from benchmarks.returns.off_policy_returns import OffPolicyReturns
from benchmarks.returns.ppo_returns import PPOReturns
from benchmarks.returns.recorded_training import ReturnRecorder, train_once
from benchmarks.returns.returns_log import BinReturn, ReturnsLog
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle import PrioritizedReplayBuffer
from sb3_walle.cli.arguments import UsageError, run_command_line

NAN = float("nan")
needs_zoo = pytest.mark.skipif(find_spec("rl_zoo3") is None, reason="needs rl_zoo3")


def csv_rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "returns.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs_of(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Seeds and contenders in the order of their first rows."""
    return list(dict.fromkeys((row["seed"], row["contender"]) for row in rows))


def do_not_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_returns", "plot_learning_curves"):
        monkeypatch.setattr(returns, name, lambda *arguments: None)


class FakeTraining:
    """Instead of training and drawing, returns that are known; may end too early."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ends_in_run: int | None = None, ends_with: type = KeyboardInterrupt
    ) -> None:
        self.runs: list[tuple[int, str]] = []
        self.ends_in_run, self.ends_with = ends_in_run, ends_with
        monkeypatch.setattr(returns, "train_once", self.train)
        do_not_draw(monkeypatch)
        monkeypatch.setattr(returns, "check_settings", lambda settings: gym.make(settings.env_id))

    def train(
        self, trainee: Trainee, settings: ReturnsSettings, seed: int, on_row: Callable[[BinReturn], object]
    ) -> list[BinReturn]:
        self.runs.append((seed, trainee.name))
        rows = []
        for number, timesteps in enumerate(settings.bin_ends):
            if len(self.runs) == self.ends_in_run and number == 3:
                raise self.ends_with
            # No number with a short decimal representation.
            rows.append(BinReturn(seed, trainee.name, timesteps, number + seed / 3 + len(trainee.name), 2, number))
            on_row(rows[-1])
        return rows


# The bins


def test_bins_have_the_episodes_that_ended_in_them() -> None:
    bins = []
    recorder = ReturnRecorder((4, 9, 10, 12), lambda timesteps, values: bins.append((timesteps, values)))

    def step(timesteps: int, *episode_returns: float) -> bool:
        recorder.num_timesteps = timesteps
        recorder.locals = {"infos": [{"episode": {"r": value, "l": 1}} for value in episode_returns] + [{}]}
        return recorder._on_step()

    assert step(2, 1.0)
    assert step(4, 2.0, 3.0)
    assert step(6)
    assert step(8, 4.0)
    # After step 9, which no call ends at.
    assert step(10, 5.0)
    assert not step(14, 6.0)
    assert bins == [(4, [1.0, 2.0, 3.0]), (9, [4.0]), (10, [5.0]), (12, [])]


def test_bins_cover_all_steps() -> None:
    assert PPOReturns("CartPole-v1", total_timesteps=103, n_bins=5).bin_ends == (20, 41, 61, 82, 103)


@pytest.mark.parametrize(("n_samplers", "envs_per_sampler", "n_steps"), [(1, 1, 2048), (10, 1, 204), (2, 8, 128)])
def test_an_iteration_is_as_long_as_that_of_one_environment(
    n_samplers: int, envs_per_sampler: int, n_steps: int
) -> None:
    settings = PPOReturns("CartPole-v1", n_samplers=n_samplers, envs_per_sampler=envs_per_sampler)
    assert settings.n_steps == n_steps
    assert [trainee.arguments["n_steps"] for trainee in settings.trainees()] == [n_steps] * 2
    assert replace(settings, ppo={"n_steps": 7}).n_steps == 7


def test_returns_are_those_of_ppo() -> None:
    (reference, _), rows = TINY.trainees(), []
    assert train_once(reference, TINY, 1, rows.append) == rows
    oracle = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2), seed=1, device="cpu", stats_window_size=1000, **TINY.ppo)
    oracle.learn(TINY.total_timesteps)
    episodes = [episode["r"] for episode in oracle.ep_info_buffer or ()]
    assert [row.timesteps for row in rows] == [64, 128, 192, 256, 320]
    assert sum(row.n_episodes for row in rows) == len(episodes) > 5
    assert sum(row.n_episodes * row.mean_return for row in rows if row.n_episodes) == pytest.approx(sum(episodes))


def test_synchronous_samplers_have_the_returns_of_ppo() -> None:
    settings = replace(
        TINY,
        n_samplers=1,
        envs_per_sampler=2,
        modes=("sync",),
        async_ppo={"backend": "inline", "actor": "torch"},
    )
    reference, samplers = (train_once(trainee, settings, 0, lambda row: None) for trainee in settings.trainees())
    assert [(row.mean_return, row.n_episodes) for row in samplers] == [
        (row.mean_return, row.n_episodes) for row in reference
    ]


@pytest.mark.parametrize(("algorithm", "env"), [("td3", "Pendulum-v1"), ("dqn", "CartPole-v1")])
def test_synchronous_samplers_have_the_returns_of_off_policy_algorithms(algorithm: str, env: str) -> None:
    settings = OffPolicyReturns(
        env,
        # Episodes of Pendulum are 200 steps long.
        total_timesteps=400,
        n_samplers=1,
        modes=("sync",),
        n_bins=2,
        algorithm=algorithm,
        arguments={"policy_kwargs": {"net_arch": [4]}, "batch_size": 4, "learning_starts": 20, "gradient_steps": 1},
        of_ours={"backend": "inline", "actor": "torch", "learner": "eager"},
    )
    reference, samplers = (train_once(trainee, settings, 0, lambda row: None) for trainee in settings.trainees())
    assert [(row.mean_return, row.n_episodes) for row in samplers] == [
        (row.mean_return, row.n_episodes) for row in reference
    ]
    assert all(row.n_episodes for row in reference)
    # SB3 changes the dictionary that it gets.
    assert settings.describe()["policy_kwargs"] == {"net_arch": [4]}


def test_algorithms_whose_policy_does_not_explore_have_noise() -> None:
    described = OffPolicyReturns("Pendulum-v1", algorithm="td3").describe()
    assert (described["algorithm"], described["noise"], described["gradient_steps"]) == ("td3", 0.1, -1)
    assert OffPolicyReturns("Pendulum-v1").describe()["noise"] is None
    for algorithm, has_noise in (("ddpg", True), ("sac", False)):
        for trainee in OffPolicyReturns("Pendulum-v1", algorithm=algorithm).trainees():
            assert ("action_noise" in trainee.arguments) == has_noise


@pytest.mark.parametrize(("n_samplers", "train_freq"), [(1, 256), (10, 25), (300, 1)])
def test_dqn_learns_as_often_with_any_number_of_environments(n_samplers: int, train_freq: int) -> None:
    settings = OffPolicyReturns("CartPole-v1", algorithm="dqn", n_samplers=n_samplers)
    assert {trainee.arguments["train_freq"] for trainee in settings.trainees()} == {train_freq}
    assert f"train_freq={train_freq}, learning_rate=0.0023" in settings.algorithm_in_words()[0]


def test_prioritised_replay_takes_part_beside_uniform_replay() -> None:
    settings = OffPolicyReturns(
        "CartPole-v1",
        total_timesteps=400,
        n_samplers=2,
        n_bins=5,
        algorithm="dqn",
        arguments={"policy_kwargs": {"net_arch": [4]}, "batch_size": 4, "learning_starts": 20, "gradient_steps": 1},
        of_ours={"backend": "inline", "learner": "eager"},
        prioritized=True,
    )
    # What was compared before can be continued with it.
    assert settings.describe() == replace(settings, prioritized=False).describe()
    _, uniform, prioritized = settings.trainees()
    assert prioritized.name == f"{uniform.name}, prioritised"
    assert "replay_buffer_class" not in uniform.arguments
    with prioritized.running(settings.env_id, seed=0) as model:
        assert isinstance(model.replay_buffer, PrioritizedReplayBuffer)
    assert sum(row.n_episodes for row in train_once(prioritized, settings, 0, lambda row: None)) > 0


def test_algorithms_of_other_actions_are_refused(tmp_path: Path) -> None:
    for algorithm, env, kind in (("ddpg", "CartPole-v1", "Box"), ("dqn", "Pendulum-v1", "Discrete")):
        with pytest.raises(UsageError, match=f"only supports .*{kind}"):
            compare_returns(OffPolicyReturns(env, algorithm=algorithm), tmp_path / algorithm)


def test_training_ends_with_the_last_bin() -> None:
    settings = replace(TINY, total_timesteps=330)
    assert [row.timesteps for row in train_once(settings.trainees()[1], settings, 0, lambda row: None)][-1] == 330


# Normalisation


def test_ppo_is_normalised_with_its_own_discount() -> None:
    settings = replace(TINY, normalize=True, ppo={**TINY.ppo, "gamma": 0.5})
    reference, asynchronous = settings.trainees()
    model = reference.contender.create("CartPole-v1", "sync", **reference.arguments)
    env = model.get_env()
    assert isinstance(env, VecNormalize) and env.training and env.norm_obs and env.norm_reward
    assert env.gamma == model.gamma == 0.5
    assert asynchronous.arguments["normalize"] == {"gamma": 0.5}
    env.close()


def test_returns_are_of_rewards_that_are_not_normalised() -> None:
    settings = replace(TINY, env_id="Pendulum-v1", normalize=True, total_timesteps=800)
    rows = train_once(settings.trainees()[0], settings, 0, lambda row: None)
    known = [row.mean_return for row in rows if row.n_episodes]
    # Normalised, the returns of these 200 steps each would be a few tens.
    assert len(known) == 2 and max(known) < -300


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_returns_of_normalised_samplers_are_raw_as_well(mode: str) -> None:
    settings = replace(TINY, env_id="Pendulum-v1", normalize=True, total_timesteps=800, modes=(mode,))
    rows = train_once(settings.trainees()[1], settings, 0, lambda row: None)
    known = [row.mean_return for row in rows if row.n_episodes]
    assert len(known) == 2 and max(known) < -300


# The whole of it


def test_comparison_leaves_rows_report_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = compare_returns(replace(TINY, modes=("pipelined", "free")), tmp_path / "new" / "out")
    assert outcome.directory == tmp_path / "new" / "out" and not outcome.interrupted
    names = [PPO_NAME, *(f"AsyncPPO, 2 x 1, {mode}" for mode in ("pipelined", "free"))]
    rows = csv_rows(outcome.directory)
    # Contenders take turns.
    assert runs_of(rows) == [(seed, name) for seed in "01" for name in names]
    assert [int(row["timesteps"]) for row in rows] == [64, 128, 192, 256, 320] * 6
    # Return and length of an episode are the same here.
    steps = sum(float(row["return"] or 0) * int(row["episodes"]) for row in rows)
    assert 0.5 * 6 * 320 < steps <= 6 * 320
    assert is_picture(outcome.directory / "returns.png")
    assert is_picture(outcome.directory / "learning_curves.png")
    for run in zip(*[iter(float(row["seconds"]) for row in rows)] * 5, strict=True):
        assert run[0] > 0 and list(run) == sorted(run)
    text = (outcome.directory / "report.md").read_text()
    assert outcome.report in text and "(returns.png)" in text
    for name in names:
        assert f"| {name}" in outcome.report
    progress = capsys.readouterr().err
    assert "n_steps=32" in progress
    assert [line.split(":")[0] for line in progress.splitlines() if line.startswith("[")] == [
        f"[{number}/6] seed {seed}" for number, seed in enumerate([0] * 3 + [1] * 3, 1)
    ]


def test_new_directory_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FakeTraining(monkeypatch)
    directory = compare_returns(TINY).directory
    assert directory.parent == Path("runs") and directory.name.startswith("returns-CartPole-v1-")
    assert (directory / "returns.csv").exists()


# Continuing


def test_interrupted_comparison_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTraining(monkeypatch, ends_in_run=3)
    outcome = compare_returns(TINY, tmp_path)
    assert outcome.interrupted
    # Rows come one by one: three of the third run are there.
    assert len(csv_rows(tmp_path)) == 5 + 5 + 3
    # They do not count.
    assert [cells_of(outcome.report, name)[0] for name in (PPO_NAME, ASYNC_NAME)] == ["1", "1"]
    first = csv_rows(tmp_path)[:10]

    training = FakeTraining(monkeypatch)
    outcome = compare_returns(TINY, tmp_path)
    assert not outcome.interrupted
    assert training.runs == [(1, PPO_NAME), (1, ASYNC_NAME)]
    rows = csv_rows(tmp_path)
    assert rows[:10] == first and len(rows) == 20
    assert runs_of(rows) == [("0", PPO_NAME), ("0", ASYNC_NAME), ("1", PPO_NAME), ("1", ASYNC_NAME)]

    again = compare_returns(TINY, tmp_path)
    assert len(training.runs) == 2
    assert again.report == outcome.report


def test_failure_leaves_the_report_of_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTraining(monkeypatch, ends_in_run=4, ends_with=ArithmeticError)
    with pytest.raises(ArithmeticError):
        compare_returns(TINY, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert [cells_of(report, name)[0] for name in (PPO_NAME, ASYNC_NAME)] == ["2", "1"]


def test_numbers_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = [BinReturn(0, PPO_NAME, 10, 1 / 3, 3, 0.1), BinReturn(0, PPO_NAME, 20, NAN, 0, 2 / 3)]
    log = ReturnsLog(tmp_path / "returns.csv", n_bins=2)
    for row in rows:
        log.add(row)
    for curves in (log.curves(), ReturnsLog(log.path, n_bins=2).curves()):
        assert list(curves) == [PPO_NAME]
        np.testing.assert_array_equal(curves[PPO_NAME], [[1 / 3, NAN]])


def test_more_seeds_and_modes_may_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch)
    compare_returns(TINY, tmp_path)
    training.runs.clear()
    report = compare_returns(replace(TINY, n_seeds=3, modes=("sync",)), tmp_path).report
    sync = "AsyncPPO, 2 x 1, sync"
    assert training.runs == [(0, sync), (1, sync), (2, PPO_NAME), (2, sync)]
    assert ASYNC_NAME in report and sync in report


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"normalize": True}, "normalize was False and is True"),
        ({"total_timesteps": 640}, "total_timesteps was 320 and is 640"),
        ({"ppo": {**TINY.ppo, "gamma": 0.9}}, "gamma was None and is 0.9"),
    ],
)
def test_results_of_different_settings_are_not_mixed(
    change: dict[str, Any], difference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = FakeTraining(monkeypatch)
    compare_returns(TINY, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    training.runs.clear()
    with pytest.raises(UsageError, match=difference):
        compare_returns(replace(TINY, **change), tmp_path)
    assert training.runs == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_line_that_was_cut_short_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch)
    compare_returns(TINY, tmp_path)
    whole = (tmp_path / "returns.csv").read_text()
    (tmp_path / "returns.csv").write_text(whole[:-4])
    training.runs.clear()
    compare_returns(TINY, tmp_path)
    assert training.runs == [(1, ASYNC_NAME)]
    assert (tmp_path / "returns.csv").read_text() == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,reward\n1,2\n", "its columns are not"),
        ("seed,contender,timesteps,return,episodes,seconds\n0,PPO,many,1.5,3,2.0\n", "line 2 .*many"),
        ("seed,contender,timesteps,return,episodes,seconds\n0,PPO\n", "line 2 "),
    ],
)
def test_file_of_something_else(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "returns.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        ReturnsLog(tmp_path / "returns.csv", n_bins=5)
    assert (tmp_path / "returns.csv").read_text() == text


def test_directory_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTraining(monkeypatch)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        compare_returns(TINY, tmp_path / "file")
    (tmp_path / "returns.csv").touch()
    with pytest.raises(UsageError, match="No such file"):
        compare_returns(TINY, tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UsageError, match=r"settings\.json"):
        compare_returns(TINY, tmp_path)


# The command


def asked_for(monkeypatch: pytest.MonkeyPatch, options: str, interrupted: bool = False) -> tuple[Any, Path | None, int]:
    """What a command line asks to compare, and its exit code."""
    asked = []

    def compare(settings: ReturnsSettings, out: Path | None) -> returns.ReturnsOutcome:
        asked.append((settings, out))
        return returns.ReturnsOutcome(out or Path("runs"), "the report", interrupted)

    monkeypatch.setattr(command, "compare_returns", compare)
    code = run_command_line(command.build_parser(), options.split())
    ((settings, directory),) = asked
    return settings, directory, code


@pytest.mark.parametrize("interrupted", [False, True])
def test_command_asks_for_what_the_options_say(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--modes sync free --n-samplers 3 --seeds 4 --timesteps 1e3 --normalize --gamma 0.9 --out {tmp_path}"
    settings, out, code = asked_for(monkeypatch, f"CartPole-v1 {options}", interrupted)
    assert (out, code) == (tmp_path, 130 if interrupted else 0)
    assert settings == PPOReturns(
        "CartPole-v1", 1000, 4, n_samplers=3, modes=("sync", "free"), normalize=True, ppo={"gamma": 0.9}
    )
    output = capsys.readouterr().out
    assert "the report" in output and str(tmp_path) in output
    assert ("continues" in output) == interrupted


def test_command_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, out, _ = asked_for(monkeypatch, "CartPole-v1")
    assert (settings, out) == (PPOReturns("CartPole-v1", modes=("pipelined", "free")), None)


def test_command_compares_trpo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings, _, _ = asked_for(monkeypatch, "CartPole-v1 --algo trpo --gamma 0.9")
    modes = ("sync", "pipelined")
    assert settings == PPOReturns("CartPole-v1", modes=modes, ppo={"gamma": 0.9}, algorithm="trpo")
    names = [trainee.contender.algorithm.__name__ for trainee in settings.trainees()]  # type: ignore[attr-defined]
    assert names == ["TRPO", "AsyncTRPO", "AsyncTRPO"]
    assert run_command_line(command.build_parser(), ["CartPole-v1", "--algo", "trpo", "--n-epochs", "3"]) == 2
    assert "--n-epochs is no option of TRPO" in capsys.readouterr().err


def test_command_compares_off_policy_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    dqn, _, _ = asked_for(monkeypatch, "CartPole-v1 --algo dqn --n-samplers 4")
    assert dqn == OffPolicyReturns("CartPole-v1", 50_000, n_samplers=4, modes=("pipelined", "free"), algorithm="dqn")
    prioritized, _, _ = asked_for(monkeypatch, "CartPole-v1 --algo dqn --n-samplers 4 --prioritized")
    assert prioritized == replace(dqn, prioritized=True)
    td3, _, _ = asked_for(monkeypatch, "Pendulum-v1 --algo td3 --net-arch 64 32")
    assert (td3.total_timesteps, td3.arguments) == (10_000, {"policy_kwargs": {"net_arch": [64, 32]}})
    ppo, _, _ = asked_for(monkeypatch, "Pendulum-v1 --net-arch 64 32")
    assert ppo.ppo == td3.arguments


@needs_zoo
def test_command_takes_the_zoos_hyperparameters(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _, _ = asked_for(monkeypatch, "HalfCheetah-v4 --zoo --seeds 3 --modes pipelined")
    assert (settings.total_timesteps, settings.n_seeds, settings.n_envs) == (1_000_000, 3, 1)
    assert settings.normalize is True and settings.n_steps == 512
    assert (settings.ppo["batch_size"], settings.ppo["clip_range"]) == (64, 0.1)
    settings, _, _ = asked_for(monkeypatch, "CartPole-v1 --zoo --gamma 0.5 --timesteps 1e3 --n-samplers 4")
    assert (settings.total_timesteps, settings.n_envs, settings.ppo["gamma"]) == (1000, 4, 0.5)


@needs_zoo
def test_comparison_with_the_zoos_hyperparameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = (
        "CartPole-v1 --zoo --n-samplers 2 --seeds 2 --timesteps 320 --n-steps 32 --batch-size 32 --modes pipelined"
    )
    settings, _, _ = asked_for(monkeypatch, options)
    monkeypatch.undo()
    do_not_draw(monkeypatch)
    settings = replace(settings, async_ppo={"learner": "eager", "backend": "inline"})
    report = compare_returns(settings, tmp_path).report
    # Also again: settings that are no numbers are the same ones as before.
    assert compare_returns(settings, tmp_path).report == report
    assert "learning_rate=LinearSchedule(0.001, 0, 1)" in report
    assert runs_of(csv_rows(tmp_path))[0] == ("0", "PPO, DummyVecEnv(2)")


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        ("--seeds 1", "--seeds"),
        ("--algo sac --zoo", "--zoo is for --algo ppo"),
        ("--modes sync fast", "--modes"),
        ("--timesteps 100", "at least 200 are needed"),
        ("--n-steps 1 --n-samplers 1", "n_steps"),
        ("--n-samplers 0", "--n-samplers"),
        ("--algo dqn --batch-size 32", "--batch-size is for --algo ppo"),
        ("--algo ppo --prioritized", "--prioritized is for --algo dqn"),
    ],
)
def test_bad_options(options: str, mentioned: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = run_command_line(command.build_parser(), ["CartPole-v1", *options.split()])
    except SystemExit as exit_:
        code = exit_.code
    error = capsys.readouterr().err
    assert code == 2 and mentioned in error and len(error.splitlines()) == 1


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_id": "NoSuchEnv-v0"}, "NoSuchEnv-v0"),
        ({"n_bins": 7}, "multiple of 5, got 7"),
        ({"n_bins": 0}, "multiple of 5, got 0"),
        ({"total_timesteps": 9}, "at least 10 are needed"),
        ({"modes": ("fast",)}, "fast"),
        ({"n_samplers": 1, "ppo": {"n_steps": 1}}, "n_steps"),
        ({"async_ppo": {"actor": "abacus"}}, "abacus"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        compare_returns(replace(TINY, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_without_final_return_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(trainee: Trainee, settings: ReturnsSettings, seed: int, on_row: Callable[[BinReturn], object]) -> Any:
        rows = [BinReturn(seed, trainee.name, timesteps, NAN, 0, 1.0) for timesteps in settings.bin_ends]
        for row in rows:
            on_row(row)
        return rows

    FakeTraining(monkeypatch)
    monkeypatch.setattr(returns, "train_once", train)
    compare_returns(replace(TINY, env_id="Pendulum-v1"), tmp_path)
    error = capsys.readouterr().err
    assert "2 episodes side by side may take 400 steps" in error
    assert "final return -," in error
