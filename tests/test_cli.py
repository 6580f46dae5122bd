"""The sb3-walle command: what it prints, what it leaves behind and how it ends."""

import csv
import inspect
import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import ProgressBarCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle import __version__
from sb3_walle.cli import build_parser, main
from sb3_walle.experiments import training
from sb3_walle.experiments.plots import plot_learning_curve, read_learning_curve
from sb3_walle.experiments.returns import comparison as returns
from sb3_walle.experiments.returns.ppo import PPOReturns
from sb3_walle.experiments.returns.replay import ReplayReturns

TINY = ["--n-samplers", "2", "--n-steps", "32", "--batch-size", "32", "--n-epochs", "1", "--seed", "0"]

BROKEN_ENV = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class BrokenEnv(CartPoleEnv):
    def step(self, action):
        raise ZeroDivisionError("the pole has no length")

gym.register("Broken-v0", entry_point=BrokenEnv, max_episode_steps=10)
"""


def run_directory(runs: Path) -> Path:
    (directory,) = runs.iterdir()
    return directory


def is_picture(path: Path) -> bool:
    image = imread(path)
    return image.shape[0] > 100 and image.shape[1] > 100 and float(np.std(image)) > 0


def progress_rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fails_with_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = exit_.code
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize(
    ("argv", "mentioned"),
    [
        (["--help"], ["train", "bench", "returns", "figures", "example"]),
        (
            ["train", "--help"],
            ["--n-samplers", "--max-policy-lag", "--plain", "--no-normalize", "pipelined"],
        ),
        (["bench", "--help"], ["--repeats", "--skip-subproc", "(default: 20480)", "example"]),
        (["returns", "--help"], ["--seeds", "--no-normalize", "pipelined", "(default: 200000)", "example"]),
        (["figures", "--help"], ["--quick", "--step-latency", "walle", "(default: figures)", "example"]),
        (["--version"], [__version__]),
    ],
)
def test_help(argv: list[str], mentioned: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert [word for word in mentioned if word not in text] == []


def sb3s_defaults() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(PPO.__init__).parameters.items()}


def test_defaults_are_those_of_ppo() -> None:
    arguments = vars(build_parser().parse_args(["returns", "CartPole-v1"]))
    defaults = sb3s_defaults()
    shared = arguments.keys() & defaults.keys() - {"env", "n_steps"}
    assert {"batch_size", "gamma", "clip_range"} <= shared
    assert {name: arguments[name] for name in shared} == {name: defaults[name] for name in shared}


def test_train_shows_the_defaults_of_ppo(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = dict(re.findall(r"--([a-z-]+) [NX] [^()]*\(default: ([^)]*)\)", " ".join(capsys.readouterr().out.split())))
    defaults = sb3s_defaults()
    found = {name: shown[name.replace("_", "-")] for name in training.HYPERPARAMETERS}
    assert found == {name: str(defaults[name]) for name in training.HYPERPARAMETERS}


def test_whole_numbers_may_be_written_shortly() -> None:
    assert build_parser().parse_args(["train", "CartPole-v1", "--timesteps", "1e6"]).timesteps == 1_000_000


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--n-samplers", "0"], "--n-samplers"),
        (["--n-samplers", "two"], "'two'"),
        (["--timesteps", "1.5"], "--timesteps"),
        (["--timesteps", "inf"], "--timesteps"),
        (["--gamma", "1.1"], "--gamma"),
        (["--gamma", "nan"], "--gamma"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--mode", "fast"], "--mode"),
        (["--policy", "LstmPolicy"], "--policy"),
        (["--device", "abacus"], "abacus"),
        (["--mode", "sync", "--max-policy-lag", "3"], "max_policy_lag"),
    ],
)
def test_bad_value(options: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mentioned in fails_with_usage_error(["train", "CartPole-v1", *options], capsys)


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--seeds", "1"], "--seeds"),
        (["--modes", "sync", "fast"], "--modes"),
        (["--timesteps", "100"], "at least 200 are needed"),
        (["--bins", "8"], "multiple of 5"),
        (["--n-steps", "1", "--n-samplers", "1"], "n_steps"),
        (["--n-samplers", "0"], "--n-samplers"),
    ],
)
def test_bad_value_for_returns(options: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mentioned in fails_with_usage_error(["returns", "CartPole-v1", *options], capsys)


@pytest.mark.parametrize("command", ["train", "bench", "returns"])
@pytest.mark.parametrize("env_id", ["NoSuchEnv-v0", "no_such_module:Env-v0", "CartPole-v99", "not an id"])
def test_unknown_environment(command: str, env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert env_id in fails_with_usage_error([command, env_id], capsys)


def test_missing_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in fails_with_usage_error([], capsys)


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_policy_that_does_not_fit(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--policy", policy, "--run-dir", str(tmp_path), *TINY]
    assert policy in fails_with_usage_error(["train", "CartPole-v1", *options], capsys)
    assert list(tmp_path.iterdir()) == []


def test_run_dir_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").touch()
    options = ["--run-dir", str(tmp_path / "runs"), *TINY]
    assert "directory" in fails_with_usage_error(["train", "CartPole-v1", *options], capsys)


def test_train_saves_the_statistics_that_belong_to_the_model(tmp_path: Path) -> None:
    options = ["--normalize", "--timesteps", "200", "--run-dir", str(tmp_path), *TINY]
    assert main(["train", "CartPole-v1", *options]) == 0
    directory = run_directory(tmp_path)
    env = VecNormalize.load(str(directory / "vecnormalize.pkl"), make_vec_env("CartPole-v1", 2))
    assert env.obs_rms.count > 200
    PPO.load(directory / "model.zip", env=env).learn(64)


def test_train_leaves_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", "--timesteps", "200", "--run-dir", str(tmp_path / "runs"), *TINY]) == 0
    directory = run_directory(tmp_path / "runs")
    assert directory.name.startswith("CartPole-v1-")
    assert is_picture(directory / "learning_curve.png")
    assert len(list(directory.glob("events.out.tfevents*"))) == 1
    assert json.loads((directory / "settings.json").read_text())["n_steps"] == 32

    rows = progress_rows(directory)
    assert [int(row["time/total_timesteps"]) for row in rows] == [64, 128, 192, 256]
    assert float(rows[-1]["rollout/ep_rew_mean"]) > 0

    model = PPO.load(directory / "model.zip", device="cpu")
    assert model.num_timesteps == 256

    output = capsys.readouterr().out
    assert "ep_rew_mean" in output
    assert "256/200" in output
    assert str(directory) in output


def test_train_for_less_than_a_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "Pendulum-v1", "--timesteps", "10", "--run-dir", str(tmp_path), *TINY]) == 0
    directory = run_directory(tmp_path)
    assert [int(row["time/total_timesteps"]) for row in progress_rows(directory)] == [64]
    assert is_picture(directory / "learning_curve.png")
    assert "training ends after it" in capsys.readouterr().out


def test_interrupt_saves_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupt(ProgressBarCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps > 100:
                raise KeyboardInterrupt
            return super()._on_step()

    monkeypatch.setattr(training, "ProgressBarCallback", Interrupt)
    assert main(["train", "CartPole-v1", "--timesteps", "1000", "--run-dir", str(tmp_path), *TINY]) == 130
    directory = run_directory(tmp_path)
    assert len(progress_rows(directory)) == 1
    assert is_picture(directory / "learning_curve.png")
    assert PPO.load(directory / "model.zip", device="cpu").num_timesteps > 100
    assert "Interrupted after" in capsys.readouterr().out


def test_exception_in_environment_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_env.py").write_text(BROKEN_ENV)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Exception) as error:
        main(["train", "broken_env:Broken-v0", "--run-dir", str(tmp_path / "runs"), *TINY])
    text = str(error.getrepr(chain=True))
    assert "ZeroDivisionError: the pole has no length" in text
    assert "broken_env.py" in text


def test_runs_of_the_same_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[override]
            return cls(2020, 1, 2, 3, 4, 5)

    monkeypatch.setattr(training, "datetime", Clock)
    names = [training.create_run_directory(tmp_path, "ALE/Pong-v5").name for _ in range(3)]
    assert names == ["ALE-Pong-v5-20200102-030405", "ALE-Pong-v5-20200102-030405-2", "ALE-Pong-v5-20200102-030405-3"]


def test_learning_curve_has_the_logged_numbers(tmp_path: Path) -> None:
    progress = tmp_path / "progress.csv"
    progress.write_text(
        "rollout/ep_rew_mean,time/fps,time/time_elapsed,time/total_timesteps\n"
        ",1000,0,500\n"
        "-3.5,1000,1,1000\n"
        "12,800,2,1600\n"
    )
    curve = read_learning_curve(progress)
    assert curve.timesteps.tolist() == [1000, 1600]
    assert curve.rewards.tolist() == [-3.5, 12]
    np.testing.assert_allclose(curve.minutes, [1 / 60, 2 / 60])


@pytest.mark.parametrize("text", ["", "time/fps,time/time_elapsed,time/total_timesteps\n100,1,100\n"])
def test_learning_curve_without_episodes(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.csv").write_text(text)
    plot_learning_curve(tmp_path / "progress.csv", tmp_path / "curve.png")
    assert is_picture(tmp_path / "curve.png")


@pytest.mark.parametrize("interrupted", [False, True])
def test_returns_asks_for_what_the_options_say(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def compare(settings: PPOReturns, out: Path | None) -> returns.ReturnsOutcome:
        asked.append((settings, out))
        return returns.ReturnsOutcome(tmp_path, "the report", interrupted)

    monkeypatch.setattr(returns, "compare_returns", compare)
    options = [
        "--modes",
        "sync",
        "free",
        "--n-samplers",
        "3",
        "--envs-per-sampler",
        "2",
        "--seeds",
        "4",
        "--bins",
        "10",
    ]
    more = ["--timesteps", "1e3", "--normalize", "--gamma", "0.9", "--n-steps", "16", "--out", str(tmp_path)]
    assert main(["returns", "CartPole-v1", *options, *more]) == (130 if interrupted else 0)
    ((settings, out),) = asked
    assert out == tmp_path
    assert (settings.env_id, settings.total_timesteps, settings.n_seeds, settings.n_bins) == (
        "CartPole-v1",
        1000,
        4,
        10,
    )
    assert (settings.modes, settings.n_samplers, settings.envs_per_sampler) == (("sync", "free"), 3, 2)
    assert settings.normalize
    assert (settings.n_steps, settings.ppo["gamma"], settings.ppo["batch_size"]) == (16, 0.9, 64)
    # Nothing but arguments of PPO.
    assert settings.ppo.keys() <= inspect.signature(PPO.__init__).parameters.keys()
    output = capsys.readouterr().out
    assert "the report" in output and str(tmp_path) in output
    assert ("goes on" in output) == interrupted


def test_returns_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(settings: PPOReturns, out: Path | None) -> returns.ReturnsOutcome:
        asked.append((settings, out))
        return returns.ReturnsOutcome(Path("runs"), "", False)

    monkeypatch.setattr(returns, "compare_returns", compare)
    assert main(["returns", "CartPole-v1"]) == 0
    ((settings, out),) = asked
    assert out is None
    assert settings == replace(PPOReturns("CartPole-v1"), ppo=settings.ppo)
    assert "n_steps" not in settings.ppo


def test_learning_curves_of_off_policy_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(settings: ReplayReturns, out: Path | None) -> returns.ReturnsOutcome:
        asked.append(settings)
        return returns.ReturnsOutcome(Path("runs"), "", False)

    monkeypatch.setattr(returns, "compare_returns", compare)
    assert main(["bench", "CartPole-v1", "--algo", "dqn", "--learning", "--n-samplers", "4"]) == 0
    assert main(["bench", "Pendulum-v1", "--algo", "td3", "--learning", "--net-arch", "64", "32"]) == 0
    dqn, td3 = asked
    assert dqn == ReplayReturns(
        "CartPole-v1", 50_000, 5, n_samplers=4, modes=("pipelined", "free"), n_bins=15, algorithm="dqn"
    )
    assert (td3.algorithm, td3.total_timesteps, td3.n_samplers) == ("td3", 10_000, 10)
    assert td3.arguments == {"policy_kwargs": {"net_arch": [64, 32]}}


def test_networks_of_ppo_cannot_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "CartPole-v1", "--net-arch", "64"]) == 2
    assert "--net-arch is for off-policy algorithms" in capsys.readouterr().err


def test_learning_curves_have_the_hyperparameters_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(settings: PPOReturns, out: Path | None) -> returns.ReturnsOutcome:
        asked.append((settings, out))
        return returns.ReturnsOutcome(Path("runs"), "", False)

    monkeypatch.setattr(returns, "compare_returns", compare)
    assert main(["bench", "CartPole-v1", "--learning", "--seeds", "3", "--batch-size", "128"]) == 0
    ((settings, out),) = asked
    assert out is None
    assert settings.modes == ("pipelined", "free")
    assert (settings.total_timesteps, settings.n_seeds) == (300_000, 3)
    # SB3's default of n_steps, for each of ten environments.
    assert (settings.n_samplers, settings.n_steps) == (10, 2048)
    assert settings.ppo == {"n_steps": 2048, "batch_size": 128, "n_epochs": 10}
