"""The sb3-walle command: what it prints, what it leaves behind and how it ends."""

import csv
import inspect
import json
import re
import subprocess
import sys
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
from sb3_walle.cli import build_parser, comparison, main, training
from sb3_walle.cli.algorithms import possible_learner
from sb3_walle.cli.arguments import ALGORITHMS
from sb3_walle.cli.learning_curve import plot_learning_curve, read_learning_curve

TINY = ["--n-samplers", "2", "--n-steps", "32", "--batch-size", "32", "--n-epochs", "1", "--seed", "0", "--no-video"]

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
        (["--help"], ["train", "bench", "example"]),
        (
            ["train", "--help"],
            [
                "--n-samplers",
                "--n-envs",
                "--max-policy-lag",
                "--plain",
                "--no-normalize",
                "--no-video",
                "--timeline",
                "pipelined",
            ],
        ),
        (["bench", "--help"], ["--n-samplers", "ppo,sac,td3,ddpg,dqn", "(default: 10)", "example"]),
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
        (["--algo", "reinforce"], "--algo"),
        (["--algo", "sac", "--n-epochs", "3"], "--n-epochs is no option of SAC"),
        (["--n-envs", "5", "--n-samplers", "2"], "n_samplers=2"),
        (["--device", "abacus"], "abacus"),
        (["--n-learners", "0"], "--n-learners"),
        (["--n-learners", "two"], "'two'"),
        (["--learner", "eager", "--n-learners", "2"], "n_learners=2 shares compiled updates"),
        (["--mode", "sync", "--max-policy-lag", "3"], "max_policy_lag"),
        (["--algo", "sac", "--rollout", "episodes"], "--rollout is no option of SAC"),
        (["--algo", "a2c", "--preset", "batchppo"], "--preset is no option of A2C"),
        (["--preset", "batchppo"], "preset='batchppo'"),
        (["--rollout", "episodes"], "target_steps"),
        (["--target-steps", "100"], "rollout='episodes'"),
        (["--rollout", "episodes", "--target-steps", "100", "--n-steps", "8"], "n_steps=8"),
    ],
)
def test_bad_value(options: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mentioned in fails_with_usage_error(["train", "CartPole-v1", *options], capsys)


@pytest.mark.parametrize("command", ["train", "bench"])
@pytest.mark.parametrize("env_id", ["NoSuchEnv-v0", "no_such_module:Env-v0", "CartPole-v99", "not an id"])
def test_unknown_environment(command: str, env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert env_id in fails_with_usage_error([command, env_id], capsys)


def test_missing_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in fails_with_usage_error([], capsys)


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--policy", "CnnPolicy"], "CnnPolicy"),
        (["--policy", "MultiInputPolicy"], "MultiInputPolicy is for observations that are dictionaries"),
        (["--policy", "MlpLstmPolicy"], "--algo ppo has no MlpLstmPolicy, but MlpPolicy"),
        (["--algo", "recurrent_ppo", "--policy", "MlpPolicy"], "--algo recurrent_ppo has no MlpPolicy, but MlpLstm"),
        (["--algo", "maskable_ppo"], "AsyncMaskablePPO asks environments for action_masks(), and these have none"),
    ],
)
def test_algorithm_that_does_not_fit(
    options: list[str], mentioned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "CartPole-v1", *options, "--run-dir", str(tmp_path), *TINY]
    assert mentioned in fails_with_usage_error(argv, capsys)
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


def test_train_leaves_a_timeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--timeline", "--timesteps", "200", "--run-dir", str(tmp_path), *TINY]
    assert main(["train", "CartPole-v1", *options]) == 0
    directory = run_directory(tmp_path)
    assert is_picture(directory / "timeline.png")
    assert json.loads((directory / "timeline.json").read_text())["traceEvents"]
    assert str(directory / "timeline.json") in capsys.readouterr().out


def test_train_for_less_than_a_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "Pendulum-v1", "--timesteps", "10", "--run-dir", str(tmp_path), *TINY]) == 0
    directory = run_directory(tmp_path)
    assert [int(row["time/total_timesteps"]) for row in progress_rows(directory)] == [64]
    assert is_picture(directory / "learning_curve.png")
    assert "training ends after it" in capsys.readouterr().out


def test_train_with_whole_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is known to suit CartPole has n_steps, and eight environments."""
    options = ["--rollout", "episodes", "--target-steps", "600", "--n-samplers", "2", "--mode", "sync", "--seed", "0"]
    few = ["--n-epochs", "1", "--no-video", "--timesteps", "1500", "--run-dir", str(tmp_path)]
    assert main(["train", "CartPole-v1", "--objective", "kl_penalty", "--preset", "batchppo", *options, *few]) == 0
    directory, output = run_directory(tmp_path), capsys.readouterr().out
    assert "2 samplers of 1 environment; about 600 timesteps an iteration, in whole episodes" in output
    settings = json.loads((directory / "settings.json").read_text())
    assert "n_steps" not in settings
    assert (settings["rollout"], settings["target_steps"], settings["n_envs"]) == ("episodes", 600, 2)
    assert (settings["objective"], settings["preset"]) == ("kl_penalty", "batchppo")
    rows = progress_rows(directory)
    assert float(rows[-1]["rollout/ep_len_mean"]) > 5
    assert all(int(row["async/episodes"]) >= 1 for row in rows)
    PPO.load(directory / "model.zip", env=make_vec_env("CartPole-v1", 1)).learn(64)


def test_interrupt_saves_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupt(ProgressBarCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps > 100:
                raise KeyboardInterrupt
            return super()._on_step()

    monkeypatch.setattr(training, "ProgressBarCallback", Interrupt)
    options = ["--timeline", "--timesteps", "1000", "--run-dir", str(tmp_path), *TINY]
    assert main(["train", "CartPole-v1", *options]) == 130
    directory = run_directory(tmp_path)
    assert len(progress_rows(directory)) == 1
    assert is_picture(directory / "learning_curve.png") and is_picture(directory / "timeline.png")
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


def measured(arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The cells of the table, by contender."""
    assert main(["bench", *arguments.split()]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert "collection, steps/s  vs best SB3  training, steps/s  vs best SB3" in " ".join(header.split(" "))
    return {name: cells.split() for name, cells in (re.split(r"\s{2,}", line, maxsplit=1) for line in lines)}


def test_bench_measures_ppo_with_every_vec_env(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "N_STEPS", 64)
    table = measured("CartPole-v1 --n-samplers 2 --learner eager", capsys)
    sb3s = ["PPO, DummyVecEnv(2)", "PPO, SubprocVecEnv(2)"]
    assert list(table) == ["AsyncPPO, 2 samplers", *sb3s]
    for column in (0, 2):
        rates = {name: float(cells[column].replace(",", "")) for name, cells in table.items()}
        best = max(rates[name] for name in sb3s)
        for name, cells in table.items():
            assert float(cells[column + 1].removesuffix("x")) == pytest.approx(rates[name] / best, abs=0.02)


def test_bench_measures_off_policy_algorithms(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "WARM_UP", 80)
    monkeypatch.delitem(comparison.VEC_ENVS, "SubprocVecEnv")
    options = "--n-samplers 2 --timesteps 40 --learner eager --n-learners auto"
    table = measured(f"CartPole-v1 --algo dqn {options}", capsys)
    assert list(table) == ["AsyncDQN, 2 samplers", "DQN, DummyVecEnv(2)"]


@pytest.mark.parametrize("command", [["bench", "--n-samplers", "1"], ["tune", "--n-envs", "1"]])
def test_environments_without_masks_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*command, "CartPole-v1", "--algo", "maskable_ppo"]
    assert "asks environments for action_masks()" in fails_with_usage_error(argv, capsys)


def test_bench_refuses_spaces_that_the_algorithm_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Box" in fails_with_usage_error(["bench", "CartPole-v1", "--algo", "sac", "--learner", "eager"], capsys)


@pytest.mark.parametrize("command", ["train", "bench", "tune"])
def test_an_extra_that_is_missing_is_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    error = fails_with_usage_error([command, "CartPole-v1", "--algo", "trpo"], capsys)
    assert "--algo trpo needs sb3_contrib: pip install 'sb3_walle[contrib]'" in error


def test_algorithms_without_compiled_updates_are_measured_with_eager_ones() -> None:
    found = {name: possible_learner(name, "compiled") for name in ALGORITHMS}
    eager = ("crossq", "recurrent_ppo", "maskable_ppo")
    assert found == {name: "eager" if name in eager else "compiled" for name in ALGORITHMS}


def test_what_samplers_import_does_without_torch() -> None:
    program = "import sys, sb3_walle.cli.environments; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
