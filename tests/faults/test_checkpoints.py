"""However a training ends, there is a checkpoint to continue from."""

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from lifecycle_helpers import SETTINGS, inline_envs, inline_model, same, weights_of
from stable_baselines3 import DQN, PPO
from stable_baselines3.common import save_util
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import StampedEnv

from sb3_walle import AsyncDQN, AsyncPPO, SafeCheckpointCallback, callbacks
from sb3_walle.algorithm.info_needs import wants_all_infos
from sb3_walle.callbacks import checkpoints

TESTS = Path(__file__).parents[1]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fail(*_: Any, **__: Any) -> Any:
    raise OSError("the disk is full")


# What is killed while it saves


@pytest.fixture(scope="module")
def outcomes_of_kills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each kill has left, of those while a model is replaced, and of those while checkpoints are added."""
    run = subprocess.run(
        [sys.executable, TESTS / "faults" / "killed_while_saving.py", str(tmp_path_factory.mktemp("killed"))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    outcomes: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)
    assert [len(outcomes[what]) for what in ("replace", "add")] == [3, 3]
    return outcomes


def test_a_kill_while_a_model_is_replaced_leaves_one_of_the_two(
    outcomes_of_kills: dict[str, list[dict[str, Any]]],
) -> None:
    for outcome in outcomes_of_kills["replace"]:
        assert outcome["version"] > 0 and outcome["weights"] == [outcome["version"]]
        # A new file has this name until it takes the place of the old one, see test_saving.py.
        assert set(outcome["others"]) <= {".model.zip.unfinished"}


def test_a_kill_leaves_complete_checkpoints_and_hidden_files_of_one_at_most(
    outcomes_of_kills: dict[str, list[dict[str, Any]]],
) -> None:
    for outcome in outcomes_of_kills["add"]:
        steps, most_steps = outcome["latest"]
        assert steps == most_steps > 0
        assert outcome["missing"] == []
        # The files of one checkpoint, which are written before the first of them gets its name.
        assert len(outcome["hidden"]) <= 2 and all(name.endswith(".unfinished") for name in outcome["hidden"])
        # The statistics of the checkpoint whose model the kill has prevented.
        assert outcome["ahead"] <= 1


# Models


def test_a_save_that_fails_half_way_leaves_the_model_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inline_model()
    model.save(tmp_path / "model")
    weights = weights_of(model)
    model.learn(64)
    # SB3 writes this last.
    monkeypatch.setattr(save_util, "get_system_info", fail)
    with pytest.raises(OSError, match="the disk is full"):
        model.save(tmp_path / "model")
    assert names(tmp_path) == {"model.zip"}
    assert same(weights_of(AsyncPPO.load(tmp_path / "model")), weights)


def saved_by(model: BaseAlgorithm, path: Path | str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Which files there are when a model was saved, and how many warnings that gave to whom."""
    (folder / "folder.d").mkdir(parents=True)
    monkeypatch.chdir(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save(path)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return files, [warning.category for warning in caught]


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    "path", ["model", "model.zip", "model.v2", "new/folders/model", "folder", "folder.d", "new.d/a.b"]
)
def test_a_model_is_saved_where_sb3_saves_it(
    path: str, kind: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = PPO("MlpPolicy", make_vec_env(StampedEnv, 2), **SETTINGS)
    expected = saved_by(oracle, kind(path), tmp_path / "sb3", monkeypatch)
    assert saved_by(inline_model(), kind(path), tmp_path / "ours", monkeypatch) == expected


def test_warnings_of_where_a_model_is_saved_are_for_the_caller(tmp_path: Path) -> None:
    model = inline_model()
    (tmp_path / "taken.zip").mkdir()
    with pytest.warns(UserWarning, match="does not exist") as of_new, pytest.warns(UserWarning, match="is a folder"):
        model.save(tmp_path / "new" / "model")
        model.save(tmp_path / "taken")
    assert {warning.filename for warning in of_new} == {__file__}


def test_a_model_is_saved_to_a_file_that_is_open() -> None:
    model, file = inline_model(), io.BytesIO()
    model.save(file, exclude=["seed"], include=["env"])
    file.seek(0)
    assert same(weights_of(AsyncPPO.load(file)), weights_of(model))
    with pytest.raises(TypeError, match="invalid type"):
        model.save(io.StringIO())  # type: ignore[arg-type]


def test_what_is_excluded_and_included_is_up_to_the_caller(tmp_path: Path) -> None:
    model = inline_model()
    model.save(tmp_path / "model", exclude=["seed"], include=["_is_learning"])
    data = save_util.load_from_zip_file(tmp_path / "model")[0]
    assert data is not None and "seed" not in data and "_is_learning" in data


def test_sb3s_callback_saves_models_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = inline_model()
    model.learn(128, callback=CheckpointCallback(16, str(tmp_path)))
    assert names(tmp_path) == {f"rl_model_{n}_steps.zip" for n in (32, 64, 96, 128)}
    assert {AsyncPPO.load(path).num_timesteps for path in tmp_path.iterdir()} == {32, 64, 96, 128}
    monkeypatch.setattr(save_util, "get_system_info", fail)
    with pytest.raises(OSError, match="the disk is full"):
        model.learn(128, callback=CheckpointCallback(16, str(tmp_path), "other"))
    assert len(names(tmp_path)) == 4


# The callback


def normalized_ppo() -> PPO:
    return PPO("MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 2)), **SETTINGS)


def normalized_dqn() -> DQN:
    env = VecNormalize(make_vec_env("CartPole-v1", 2))
    return DQN("MlpPolicy", env, buffer_size=200, learning_starts=20, device="cpu")


def normalized_async_ppo() -> AsyncPPO:
    return inline_model("CartPole-v1", normalize=True)


def normalized_async_dqn() -> AsyncDQN:
    env = inline_envs(2, cart_pole)
    return AsyncDQN("MlpPolicy", env, normalize=True, buffer_size=200, learning_starts=20, device="cpu")


@pytest.mark.parametrize("make_model", [normalized_ppo, normalized_dqn, normalized_async_ppo, normalized_async_dqn])
def test_files_are_those_of_sb3s_callback(make_model: Callable[[], BaseAlgorithm], tmp_path: Path) -> None:
    model = make_model()
    ours, stock = tmp_path / "ours", tmp_path / "stock"
    everything = {"save_replay_buffer": True, "save_vecnormalize": True}
    model.learn(
        128,
        callback=[
            SafeCheckpointCallback(16, ours, "a", **everything),
            CheckpointCallback(16, str(stock), "a", **everything),
        ],
    )
    n_kinds = 3 if isinstance(model, DQN) else 2
    assert names(ours) == names(stock) and len(names(ours)) == 4 * n_kinds
    latest = SafeCheckpointCallback.latest(ours, "a")
    assert latest == callbacks.Checkpoint(
        128,
        ours / "a_128_steps.zip",
        ours / "a_vecnormalize_128_steps.pkl",
        ours / "a_replay_buffer_128_steps.pkl" if isinstance(model, DQN) else None,
    )
    loaded = type(model).load(latest.model)
    assert loaded.num_timesteps == 128 and same(weights_of(loaded), weights_of(type(model).load(stock / "a_128_steps")))
    assert all(path.read_bytes() == (stock / path.name).read_bytes() for path in ours.glob("*.pkl"))
    if isinstance(model, DQN):
        loaded.load_replay_buffer(latest.replay_buffer)


def test_statistics_are_saved_unless_they_are_not_wanted(tmp_path: Path) -> None:
    model = normalized_async_ppo()
    model.learn(64, callback=SafeCheckpointCallback(32, tmp_path / "with"))
    model.learn(64, callback=SafeCheckpointCallback(32, tmp_path / "without", save_vecnormalize=False))
    inline_model().learn(64, callback=SafeCheckpointCallback(32, tmp_path / "none"))
    assert names(tmp_path / "with") == {"rl_model_64_steps.zip", "rl_model_vecnormalize_64_steps.pkl"}
    assert names(tmp_path / "without") == names(tmp_path / "none") == {"rl_model_64_steps.zip"}
    assert SafeCheckpointCallback.latest(tmp_path / "none").vec_normalize is None


def test_the_model_gets_its_name_when_everything_else_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    written_whole = checkpoints.written_whole

    @contextmanager
    def observed(path: str) -> Iterator[io.BufferedWriter]:
        with written_whole(path) as file:
            yield file
            visible = {name for name in names(tmp_path) if not name.startswith(".")}
            events.append("all written" if not visible else "next")
        events.append(Path(path).name)

    monkeypatch.setattr(checkpoints, "written_whole", observed)
    normalized_dqn().learn(64, callback=SafeCheckpointCallback(32, tmp_path, save_replay_buffer=True))
    kinds = ("rl_model_vecnormalize_64_steps.pkl", "rl_model_replay_buffer_64_steps.pkl", "rl_model_64_steps.zip")
    assert events == ["all written", kinds[0], "next", kinds[1], "next", kinds[2]]


def test_a_checkpoint_that_fails_leaves_no_part_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = normalized_async_ppo()
    model.learn(64, callback=SafeCheckpointCallback(32, tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(VecNormalize, "__getstate__", fail)
    with pytest.raises(OSError, match="the disk is full"):
        model.learn(64, callback=SafeCheckpointCallback(32, tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before and len(before) == 2


def test_each_file_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    normalized_async_ppo().learn(64, callback=SafeCheckpointCallback(32, tmp_path, verbose=2))
    output = capsys.readouterr().out
    assert all(output.count(str(path)) == 1 for path in tmp_path.iterdir())


def test_it_needs_no_infos_but_a_class_derived_from_it_may() -> None:
    class Mine(SafeCheckpointCallback):
        pass

    assert not wants_all_infos(SafeCheckpointCallback(10, "unused"))
    assert wants_all_infos(Mine(10, "unused"))


# What to continue from


def test_the_latest_checkpoint_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert SafeCheckpointCallback.latest(tmp_path) is None
    assert SafeCheckpointCallback.latest(tmp_path / "missing") is None
    for name in (
        "a_900_steps.zip",
        "a_1000_steps.zip",
        "a_vecnormalize_900_steps.pkl",
        # Its model was not completed.
        "a_vecnormalize_1100_steps.pkl",
        # Others.
        "a_b_5000_steps.zip",
        "b_6000_steps.zip",
        ".a_7000_steps.zip.unfinished",
        "a_8000_steps.zip.bak",
        "a+_9000_steps.zip",
    ):
        (tmp_path / name).touch()
    (tmp_path / "a_9999_steps.zip").mkdir()
    latest = SafeCheckpointCallback.latest(str(tmp_path), "a")
    assert latest == callbacks.Checkpoint(1000, tmp_path / "a_1000_steps.zip", None, None)
    assert SafeCheckpointCallback.latest(tmp_path, "a+").steps == 9000
    assert SafeCheckpointCallback.latest(tmp_path.parent, f"{tmp_path.name}/a") == latest


def cart_pole() -> gym.Env:
    return gym.make("CartPole-v1")


class Witness(BaseCallback):
    """Notes what a checkpoint of every step would have to contain."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Any] = {}

    def _on_step(self) -> bool:
        statistics = self.model.get_vec_normalize_env()
        self.seen[self.num_timesteps] = {
            "mean": statistics.obs_rms.mean.copy(),
            "variance": statistics.obs_rms.var.copy(),
            "return": float(statistics.ret_rms.var),
            "version": self.model.policy_version,
            "weights": weights_of(self.model),
        }
        return True


def test_training_continues_from_a_checkpoint(tmp_path: Path) -> None:
    witness = Witness()
    model = inline_model("CartPole-v1", mode="free", max_policy_lag=2, normalize=True)
    # Neither the end of a rollout nor of the training.
    model.learn(320, callback=[witness, SafeCheckpointCallback(50, tmp_path)])
    latest = SafeCheckpointCallback.latest(tmp_path)
    assert latest.steps == 300 and model.num_timesteps == 320
    at_checkpoint = witness.seen[300]

    env = VecNormalize.load(latest.vec_normalize, inline_envs(2, cart_pole))
    loaded = AsyncPPO.load(latest.model, env=env)
    assert (loaded.num_timesteps, loaded.mode, loaded.max_policy_lag) == (300, "free", 2)
    assert loaded.policy_version == at_checkpoint["version"] == 4
    assert same(weights_of(loaded), at_checkpoint["weights"])
    assert loaded.get_vec_normalize_env() is env
    np.testing.assert_array_equal(env.obs_rms.mean, at_checkpoint["mean"])
    np.testing.assert_array_equal(env.obs_rms.var, at_checkpoint["variance"])
    assert env.ret_rms.var == at_checkpoint["return"]

    count_before = env.obs_rms.count
    going_on = Witness()
    loaded.learn(128, callback=[going_on, SafeCheckpointCallback(32, tmp_path)], reset_num_timesteps=False)
    assert min(going_on.seen) == 302 and loaded.num_timesteps == 300 + 128
    assert loaded.policy_version == 4 + 2
    assert env.obs_rms.count >= count_before + 128
    assert not same(weights_of(loaded), at_checkpoint["weights"])
    assert SafeCheckpointCallback.latest(tmp_path).steps == 428


def test_sb3s_ppo_continues_from_a_checkpoint(tmp_path: Path) -> None:
    model = inline_model("CartPole-v1", mode="free", max_policy_lag=2, normalize=True)
    model.learn(128, callback=SafeCheckpointCallback(32, tmp_path))
    latest = SafeCheckpointCallback.latest(tmp_path)
    env = VecNormalize.load(latest.vec_normalize, make_vec_env("CartPole-v1", 2))
    loaded = PPO.load(latest.model, env=env)
    assert type(loaded) is PPO
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 128 + 64
