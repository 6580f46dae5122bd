"""Users who did not choose n_steps learn how many samples an update takes when there are many environments."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_walle import AsyncA2C, AsyncPPO, AsyncTRPO, SamplerVecEnv
from sb3_walle.on_policy.rollout_size import steps_per_env

TEN: dict[str, Any] = {"n_samplers": 1, "envs_per_sampler": 10, "backend": "inline", "actor": "numpy", "device": "cpu"}


class ShortPPO(AsyncPPO):
    """Chooses n_steps for its users."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, n_steps=2048, **kwargs)


class NamedPPO(AsyncPPO):
    """Has an argument of its own, and leaves n_steps to SB3."""

    def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name


class Stop(BaseCallback):
    """Ends training at its first step."""

    def _on_step(self) -> bool:
        return False


def ten_envs() -> SamplerVecEnv:
    return SamplerVecEnv([lambda: gym.make("CartPole-v1")] * 10, envs_per_sampler=10, backend="inline")


def advice(model: OnPolicyAlgorithm, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    model.learn(1, callback=Stop())
    return [line for line in capsys.readouterr().out.splitlines() if "n_steps" in line]


@pytest.mark.parametrize("algorithm", [AsyncPPO, NamedPPO, AsyncTRPO])
def test_a_default_that_makes_rollouts_large_is_named_in_one_line(
    algorithm: type[OnPolicyAlgorithm], capsys: pytest.CaptureFixture[str]
) -> None:
    model = algorithm("MlpPolicy", "CartPole-v1", verbose=1, **TEN)
    (line,) = advice(model, capsys)
    assert "2048 x 10 = 20,480 samples" in line
    assert "n_steps=192" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {"n_steps": 2048}),
        ((3e-4, 2048), {}),
        ((), {"envs_per_sampler": 4}),
        ((), {"verbose": 0}),
    ],
    ids=["given by name", "given by position", "small rollouts", "silent"],
)
def test_it_is_not_said_to_who_knows(
    arguments: tuple, named: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice(AsyncPPO("MlpPolicy", "CartPole-v1", *arguments, **{**TEN, "verbose": 1, **named}), capsys) == []


@pytest.mark.parametrize("algorithm", [ShortPPO, AsyncA2C])
def test_other_defaults(algorithm: type[OnPolicyAlgorithm], capsys: pytest.CaptureFixture[str]) -> None:
    assert advice(algorithm("MlpPolicy", "CartPole-v1", verbose=1, **TEN), capsys) == []


@pytest.mark.parametrize("saved_by", [PPO, AsyncPPO])
@pytest.mark.parametrize(("n_steps", "is_said"), [({}, True), ({"n_steps": 4096}, False)], ids=["default", "given"])
def test_loading(
    saved_by: type[PPO], n_steps: dict[str, int], is_said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = TEN if saved_by is AsyncPPO else {"device": "cpu"}
    saved_by("MlpPolicy", "CartPole-v1", verbose=1, **n_steps, **environment).save(tmp_path / "model")
    model = AsyncPPO.load(tmp_path / "model", env=ten_envs(), device="cpu")
    assert len(advice(model, capsys)) == is_said


def test_what_was_given_stays_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_steps=2048, verbose=1, **TEN)
    model.save(tmp_path / "model")
    for same in (AsyncPPO.load(tmp_path / "model", env=ten_envs(), device="cpu"), copy.deepcopy(model)):
        same.set_env(ten_envs())
        assert advice(same, capsys) == []


def test_copies_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    model = copy.deepcopy(AsyncPPO("MlpPolicy", "CartPole-v1", verbose=1, **TEN))
    model.set_env(ten_envs())
    assert len(advice(model, capsys)) == 1


@given(n_samples=st.integers(1, 100_000), n_envs=st.integers(1, 300), batch_size=st.integers(1, 1000))
def test_a_rollout_is_divided_into_whole_minibatches(n_samples: int, n_envs: int, batch_size: int) -> None:
    n_steps = steps_per_env(n_samples, n_envs, batch_size)
    assert n_steps >= 1
    smallest = n_envs * batch_size
    if n_samples >= smallest:
        assert n_steps * n_envs % batch_size == 0
        assert abs(n_steps * n_envs - n_samples) <= smallest / 2
    elif n_samples >= n_envs:
        assert n_steps * n_envs % batch_size == 0 or n_samples - n_envs < n_steps * n_envs <= n_samples
