"""What sb3-walle train trains with: hyperparameters that suit the environment, SB3's, or what the user gives."""

import inspect
import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common import evaluation
from test_cli import TINY, run_directory

from benchmarks.figures.figures_settings import FiguresSettings
from sb3_walle.cli import main, training
from sb3_walle.cli.hyperparameter_choice import choose_hyperparameters
from sb3_walle.cli.hyperparameters import TABLE, ZOO
from sb3_walle.cli.training import TrainingSettings

OF_THE_ZOO = [*(name for name, row in TABLE.items() if row.source == ZOO), "Ant"]


def zoo(name: str) -> dict[str, Any]:
    """The Zoo's row for an environment. To import the Zoo would change Gymnasium for all tests of this process."""
    package = find_spec("rl_zoo3")
    assert package is not None and package.origin is not None
    rows = yaml.safe_load((Path(package.origin).parent / "hyperparams" / "ppo.yml").read_text())
    (row,) = [row for env_id, row in rows.items() if env_id.rpartition("-v")[0] == name]
    return row


def asked_for(monkeypatch: pytest.MonkeyPatch, *options: str) -> TrainingSettings:
    """What a command line asks to train."""
    asked = []

    def train(settings: TrainingSettings) -> training.TrainingOutcome:
        asked.append(settings)
        return training.TrainingOutcome(Path("runs"), 0, False, 0.0, 0.0)

    monkeypatch.setattr(training, "train", train)
    assert main(["train", *options]) == 0
    return asked[0]


@pytest.mark.parametrize("name", OF_THE_ZOO)
def test_rows_of_the_zoo_are_the_zoos(name: str) -> None:
    published, row = zoo(name), TABLE[name]
    arguments = dict(row.arguments)
    assert published.pop("policy") == "MlpPolicy"
    assert row.total_timesteps == published.pop("n_timesteps")
    # Where the Zoo trains with one environment, there are more with as many samples.
    assert row.n_envs * arguments.pop("n_steps") == published.pop("n_envs", 1) * published.pop("n_steps", 2048)
    defaults = {name: parameter.default for name, parameter in inspect.signature(PPO.__init__).parameters.items()}
    defaults["normalize"] = False
    for argument in {**published, **arguments}:
        found, expected = (source.get(argument, defaults[argument]) for source in (arguments, published))
        if argument == "policy_kwargs":
            expected = eval(expected, {"nn": sys.modules["torch"].nn})
        if isinstance(expected, str) and expected.startswith("lin_"):
            # The Zoo's name for a value that falls to 0 in proportion to what is left of the training.
            first = float(expected.removeprefix("lin_"))
            assert [found(left / 8) for left in range(9)] == pytest.approx([first * left / 8 for left in range(9)])
        else:
            assert found == expected, argument


def test_half_cheetah_is_learned_by_the_agent_of_the_figures() -> None:
    figures, row = FiguresSettings(), TABLE["HalfCheetah"]
    assert row.arguments == {"n_steps": 2048, "normalize": True, **figures.agent.ppo}
    assert row.total_timesteps == figures.timesteps
    assert row.n_envs * 2048 == pytest.approx(figures.samples_per_iteration, rel=0.05)


@pytest.mark.parametrize("n_envs", [1, 2, 3, 10, 16, 64])
@pytest.mark.parametrize("name", TABLE)
def test_rollouts_have_whole_minibatches(name: str, n_envs: int) -> None:
    row, chosen = TABLE[name], choose_hyperparameters("ppo", f"{name}-v4", n_envs, {}, plain=False)
    assert chosen.arguments["n_envs"] == n_envs
    n_samples = chosen.arguments["n_steps"] * n_envs
    assert n_samples % chosen.arguments.get("batch_size", 64) == 0
    assert n_samples == pytest.approx(row.n_envs * row.arguments["n_steps"], rel=0.6)
    assert chosen.total_timesteps == row.total_timesteps


@pytest.mark.parametrize("name", TABLE)
def test_names_are_those_of_environments(name: str) -> None:
    assert [env_id for env_id in gym.registry if env_id.startswith(f"{name}-v")]


def test_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--n-samplers", "4", "--n-steps", "100", "--gamma", "0.5", "--no-normalize", "--timesteps", "1e3"]
    settings = asked_for(monkeypatch, "HalfCheetah-v5", *options)
    known = TABLE["HalfCheetah"].arguments
    assert settings.total_timesteps == 1000
    given = {"n_steps": 100, "gamma": 0.5, "normalize": False}
    assert {**known, **settings.algorithm} == {**settings.algorithm, **known, **given}
    assert "but for n_steps=100, gamma=0.5, normalize=False" in settings.reason


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["HalfCheetah-v4", "--plain"], "as --plain says"),
        (["FrozenLake-v1"], "nor the RL Zoo knows better ones for FrozenLake-v1"),
        (["FrozenLake-v1", "--gamma", "0.5"], "but for gamma=0.5"),
    ],
)
def test_otherwise_they_are_sb3s(options: list[str], mentioned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = asked_for(monkeypatch, *options)
    assert settings.reason.startswith("SB3's defaults") and mentioned in settings.reason
    assert settings.total_timesteps == 1_000_000
    given = {"gamma": 0.5} if "--gamma" in options else {}
    hyperparameters = {*inspect.signature(PPO.__init__).parameters, "normalize"} - {"seed", "device"}
    assert {name: value for name, value in settings.algorithm.items() if name in hyperparameters} == given


@pytest.mark.parametrize("env_id", ["CartPole-v1", "HalfCheetah-v4"])
def test_one_line_says_which_they_are_and_the_last_ones_evaluate(
    env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # An episode says as much as ten.
    monkeypatch.setattr(evaluation, "evaluate_policy", partial(evaluation.evaluate_policy, n_eval_episodes=1))
    assert main(["train", env_id, "--timesteps", "200", "--run-dir", str(tmp_path / "a 'run'"), *TINY]) == 0
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("Hyperparameters: ")]
    assert TABLE[env_id.partition("-")[0]].source in line and "--plain" in line and "n_steps=32" in line
    directory = run_directory(tmp_path / "a 'run'")
    left = ["model.zip", "progress.csv", "learning_curve.png"]
    left += ["vecnormalize.pkl"] if env_id == "HalfCheetah-v4" else []
    for name in left:
        assert (directory / name).exists() and str(directory / name) in output
    assert json.loads((directory / "settings.json").read_text())["n_steps"] == 32

    code = output[output.index("from stable_baselines3 import PPO") :]
    assert ("VecNormalize" in code) == (env_id == "HalfCheetah-v4")
    # In a namespace of its own, as in another program.
    exec(code, {})
    mean, deviation = eval(capsys.readouterr().out, {"np": np})
    assert -2000 < mean < 2000 and deviation >= 0
