"""The RL Zoo's hyperparameters in sb3-walle train: read as the Zoo reads them, and carried over to other shapes."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3 import DQN, PPO, TD3, HerReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from test_cli import fails_with_usage_error, run_directory

from sb3_walle.cli import main, zoo
from sb3_walle.cli.algorithms import is_on_policy, sb3_class
from sb3_walle.cli.arguments import TRAINABLE
from sb3_walle.cli.hyperparameter_choice import choose_hyperparameters, known_hyperparameters
from sb3_walle.cli.zoo import NoiseSpec, zoo_file, zoo_hyperparameters

needs_zoo = pytest.mark.skipif(find_spec("rl_zoo3") is None, reason="needs rl_zoo3")
SHORT = ["--seed", "0", "--learner", "eager", "--device", "cpu", "--no-video"]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Puts other rows in the place of the Zoo's, of any algorithm."""

    def put(rows: Mapping[str, Any]) -> None:
        for name in TRAINABLE:
            (tmp_path / f"{zoo.NAMES_THERE.get(name, name)}.yml").write_text(yaml.safe_dump(rows))
        monkeypatch.setattr(zoo, "zoo_files", lambda: tmp_path)

    return put


@needs_zoo
@pytest.mark.parametrize("algorithm", [name for name in TRAINABLE if zoo_file(name) is not None])
def test_every_row_of_the_zoo_is_understood(algorithm: str) -> None:
    file = zoo_file(algorithm)
    assert file is not None
    rows = yaml.safe_load(file.read_text())
    left_out = set()
    for env_id, row in rows.items():
        found = zoo_hyperparameters(algorithm, env_id)
        if found is None:
            # SB3's defaults.
            assert env_id == "default" and row.keys() == {"n_timesteps", "policy"}
            continue
        assert found.n_envs == row.get("n_envs", 1) and found.total_timesteps == int(row["n_timesteps"])
        assert not [value for value in found.arguments.values() if isinstance(value, str) and "(" in value]
        left_out |= {text for text in found.left_out if not text.endswith("whose package is not installed")}
    # What the Zoo has and SB3's constructor does not take.
    assert left_out == set()


@needs_zoo
def test_the_zoo_itself_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    time_limit = gym.wrappers.TimeLimit
    known_hyperparameters("ppo", "CarRacing-v3")
    assert gym.wrappers.TimeLimit is time_limit


def test_values_are_what_the_zoo_makes_of_them(rows: Any) -> None:
    row = {
        "n_timesteps": 2e4,
        "n_envs": 3,
        "policy": "MlpPolicy",
        "learning_rate": "lin_0.001",
        "policy_kwargs": "dict(net_arch=dict(pi=[64], qf=[32]), activation_fn=nn.ReLU)",
        "normalize": "{'norm_obs': False}",
        "noise_type": "normal",
        "noise_std": 0.2,
        "train_freq": [1, "episode"],
        "replay_buffer_class": "HerReplayBuffer",
        "frame_stack": 4,
        "env_wrapper": [
            "gymnasium.wrappers.NormalizeObservation",
            {"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 7}},
            "no_such_package.Wrapper",
        ],
        "callback": "some.Callback",
    }
    rows({"Pendulum-v1": row})
    found = zoo_hyperparameters("td3", "Pendulum-v1")
    assert found is not None
    assert (found.total_timesteps, found.n_envs, found.frame_stack) == (20_000, 3, 4)
    arguments = dict(found.arguments)
    assert arguments.pop("learning_rate")(0.25) == pytest.approx(0.00025)
    noise = arguments.pop("action_noise")
    assert arguments == {
        "policy_kwargs": {"net_arch": {"pi": [64], "qf": [32]}, "activation_fn": th.nn.ReLU},
        "normalize": {"norm_obs": False},
        "train_freq": (1, "episode"),
        "replay_buffer_class": HerReplayBuffer,
    }
    created = noise.create(gym.spaces.Box(-1, 1, (2,)))
    assert isinstance(noise, NoiseSpec) and isinstance(created, NormalActionNoise)
    np.testing.assert_array_equal(created._sigma, [0.2, 0.2])
    assert [wrapper.class_name for wrapper in found.wrappers] == ["NormalizeObservation", "TimeLimit"]
    assert found.wrappers[1].arguments == {"max_episode_steps": 7}
    missing = ("no_such_package.Wrapper, whose package is not installed", "callback=some.Callback")
    assert found.left_out == missing
    reason = choose_hyperparameters("td3", "Pendulum-v1", None, {}, plain=False).reason
    assert all(text in reason for text in missing) and "td3.yml" in reason and "VecFrameStack(4)" in reason


def test_python_in_the_files_knows_no_other_names(rows: Any) -> None:
    rows({"Pendulum-v1": {"n_timesteps": 1, "policy_kwargs": "__import__('os').environ"}})
    with pytest.raises(NameError):
        zoo_hyperparameters("sac", "Pendulum-v1")


@pytest.mark.parametrize(
    ("env_id", "row"),
    [("Toy-v1", "Toy-v1"), ("module:Toy-v1", "Toy-v1"), ("Toy-v3", "Toy-v2"), ("Other-v0", "default")],
)
def test_which_row_is_taken(env_id: str, row: str, rows: Any) -> None:
    names = ["default", "Toy-v1", "Toy-v2"]
    rows({name: {"n_timesteps": 10 + index, "gamma": 0.5} for index, name in enumerate(names)})
    found = zoo_hyperparameters("dqn", env_id)
    assert found is not None and found.total_timesteps == 10 + names.index(row)
    assert (f"('{row}')" in found.source) == (row not in env_id)


def test_a_default_that_is_sb3s_is_no_row(rows: Any) -> None:
    rows({"default": {"n_timesteps": 10, "policy": "MlpPolicy"}})
    assert zoo_hyperparameters("dqn", "Other-v0") is None


def test_without_the_zoo_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "find_spec", lambda name: None)
    assert "pip install rl_zoo3" in choose_hyperparameters("sac", "Pendulum-v1", None, {}, plain=False).reason


@pytest.mark.parametrize("n_envs", [1, 2, 5, 16])
@pytest.mark.parametrize("algorithm", TRAINABLE)
def test_other_numbers_of_environments_keep_the_updates(algorithm: str, n_envs: int, rows: Any) -> None:
    has_minibatches = is_on_policy(algorithm) and algorithm != "a2c"
    steps = {"n_steps": 80} if is_on_policy(algorithm) else {"train_freq": 40, "gradient_steps": 20}
    row = {"n_timesteps": 100, "n_envs": 2, **steps, **({"batch_size": 16} if has_minibatches else {})}
    rows({"Toy-v0": row})
    found = choose_hyperparameters(algorithm, "Toy-v0", n_envs, {}, plain=False).arguments
    if is_on_policy(algorithm):
        assert found["n_steps"] * n_envs == 160
    else:
        assert found["train_freq"] * n_envs == 80
        assert found["gradient_steps"] / (found["train_freq"] * n_envs) == pytest.approx(20 / 80)
    given = choose_hyperparameters(algorithm, "Toy-v0", n_envs, dict.fromkeys(steps, 3), plain=False).arguments
    assert {name: given[name] for name in steps} == dict.fromkeys(steps, 3)


@needs_zoo
@pytest.mark.parametrize(
    ("algorithm", "env_id", "steps"),
    [
        ("a2c", "Pendulum-v1", 160),
        ("sac", "Pendulum-v1", 120),
        ("td3", "Pendulum-v1", 120),
        ("dqn", "CartPole-v1", 300),
        ("trpo", "CartPole-v1", 1024),
        ("qrdqn", "CartPole-v1", 300),
    ],
)
def test_train_with_the_zoos(
    algorithm: str, env_id: str, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--algo", algorithm, "--timesteps", str(steps), "--run-dir", str(tmp_path), *SHORT]
    assert main(["train", env_id, *options]) == 0
    output = capsys.readouterr().out
    assert f"for {env_id} from the RL Zoo's hyperparams/{algorithm}.yml" in output
    directory = run_directory(tmp_path)
    settings, known = json.loads((directory / "settings.json").read_text()), zoo_hyperparameters(algorithm, env_id)
    assert known is not None and settings["n_envs"] == known.n_envs and settings["algo"] == algorithm
    assert (directory / "vecnormalize.pkl").exists() == bool(known.arguments.get("normalize"))
    assert (directory / "progress.csv").read_text().count("\n") > 1
    model = sb3_class(algorithm).load(directory / "model.zip", device="cpu")
    assert model.num_timesteps >= steps and model.gamma == known.arguments.get("gamma", 0.99)
    assert f"{sb3_class(algorithm).__name__}.load(" in output


def test_noise_and_normalisation_reach_the_model(rows: Any, tmp_path: Path) -> None:
    row = {"n_timesteps": 60, "normalize": True, "noise_type": "normal", "noise_std": 0.3, "learning_starts": 20}
    rows({"Pendulum-v1": row})
    assert main(["train", "Pendulum-v1", "--algo", "td3", "--run-dir", str(tmp_path / "runs"), *SHORT]) == 0
    model = TD3.load(run_directory(tmp_path / "runs") / "model.zip", device="cpu")
    assert isinstance(model.action_noise, NormalActionNoise) and model.num_timesteps == 60
    assert (run_directory(tmp_path / "runs") / "vecnormalize.pkl").exists()


def test_wrappers_and_frames_reach_samplers_and_the_printed_evaluation(
    rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "n_timesteps": 64,
        "n_envs": 2,
        "n_steps": 32,
        "frame_stack": 3,
        "normalize": "dict(norm_obs=False, norm_reward=True)",
        "env_wrapper": [
            "gymnasium.wrappers.TimeAwareObservation",
            {"stable_baselines3.common.atari_wrappers.MaxAndSkipEnv": {"skip": 5}},
        ],
    }
    rows({"MountainCar-v0": row})
    assert main(["train", "MountainCar-v0", "--run-dir", str(tmp_path / "runs"), *SHORT]) == 0
    output = capsys.readouterr().out
    model = PPO.load(run_directory(tmp_path / "runs") / "model.zip", device="cpu")
    # Position, velocity and time, three times.
    assert model.observation_space.shape == (9,) and model.num_timesteps == 64
    # Episodes of 200 steps that cost one each, of which the policy sees every fifth.
    exec(output[output.index("from stable_baselines3 import PPO") :], {})
    assert "-200.0" in capsys.readouterr().out


def test_options_that_are_given_win(rows: Any, tmp_path: Path) -> None:
    rows({"CartPole-v1": {"n_timesteps": 1e6, "gamma": 0.5, "learning_rate": 0.1, "train_freq": 8}})
    options = [
        "--algo",
        "dqn",
        "--gamma",
        "0.7",
        "--timesteps",
        "40",
        "--n-envs",
        "2",
        "--run-dir",
        str(tmp_path / "r"),
    ]
    assert main(["train", "CartPole-v1", *options, *SHORT]) == 0
    model = DQN.load(run_directory(tmp_path / "r") / "model.zip", device="cpu")
    assert (model.gamma, model.learning_rate, model.num_timesteps, model.train_freq.frequency) == (0.7, 0.1, 40, 4)


def test_an_algorithm_that_does_not_suit_the_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--algo", "td3", "--run-dir", str(tmp_path), *SHORT]
    assert "Discrete" in fails_with_usage_error(["train", "CartPole-v1", *options], capsys)
