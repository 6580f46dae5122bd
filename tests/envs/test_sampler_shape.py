"""How many samplers hold the environments, where the user leaves it open."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from space_env import SpaceEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_envs import RandomWalk, WaitingEnv

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv
from sb3_walle.backends.limits import available_cpus
from sb3_walle.envs.sampler_shape import Costs, measured_n_samplers, repeatable_n_samplers

MICROSECOND = 1e-6
SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "device": "cpu"}


def costs(step: float, waiting: float = 0.0, message: float = 150, act: float = 40) -> Costs:
    """In microseconds; ``waiting`` is the part of a step that needs no CPU."""
    one, busy = act * MICROSECOND, step * (1 - waiting) * MICROSECOND
    return Costs(step * MICROSECOND, busy, one, one, message * MICROSECOND)


@pytest.mark.parametrize(
    ("found", "n_steps", "n_cpus", "n_samplers"),
    [
        (costs(60), 128, 2, 2),
        (costs(60), 128, 64, 16),
        (costs(5_000, waiting=0.98), 128, 2, 16),
        (costs(5), 4, 2, 1),
        (costs(5), 1, 64, 1),
        (costs(60), 128, 6, 8),
        (costs(20_000), 1, 4, 4),
    ],
    ids=["computes", "many CPUs", "waits", "DQN's CartPole", "one step", "CPUs that do not divide them", "slow"],
)
def test_what_was_measured_decides(found: Costs, n_steps: int, n_cpus: int, n_samplers: int) -> None:
    assert measured_n_samplers(16, n_steps, found, n_cpus) == n_samplers


@given(
    st.integers(1, 200),
    st.floats(1, 1e6),
    st.floats(0, 1),
    st.floats(1, 1e5),
    st.integers(1, 128),
    st.sampled_from([1, 2, 64, float("inf")]),
)
def test_the_environments_can_always_be_divided(
    n_envs: int, step: float, waiting: float, message: float, n_steps: int, n_cpus: float
) -> None:
    for n_samplers in (
        measured_n_samplers(n_envs, n_steps, costs(step, waiting, message), n_cpus),
        repeatable_n_samplers(n_envs, n_cpus),
    ):
        assert 1 <= n_samplers <= n_envs
        assert n_envs % n_samplers == 0


def shape(model: Any) -> tuple[int, int]:
    samplers = model.env.unwrapped
    assert isinstance(samplers, SamplerVecEnv)
    assert model.n_envs == samplers.num_envs == samplers.n_samplers * samplers.envs_per_sampler
    return samplers.n_samplers, samplers.envs_per_sampler


def test_environments_that_wait_have_a_sampler_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with AsyncPPO("MlpPolicy", partial(WaitingEnv, tmp_path), n_envs=4, verbose=1, **SETTINGS) as model:
        assert shape(model) == (4, 1)
        # The first one was built once more.
        assert len(list(tmp_path.iterdir())) == 5
    assert "n_samplers=4, envs_per_sampler=1: a step takes " in capfd.readouterr().out


def test_cheap_environments_are_together_where_samplers_are_asked_often() -> None:
    with AsyncDQN("MlpPolicy", "CartPole-v1", n_envs=10, train_freq=1, buffer_size=100, device="cpu") as model:
        assert shape(model) == (1, 10)


@pytest.mark.parametrize(
    ("policy", "space", "backend"),
    [
        ("CnnPolicy", spaces.Box(0, 255, (36, 36, 3), np.uint8), "process"),
        (
            "MultiInputPolicy",
            spaces.Dict({"image": spaces.Box(0, 255, (36, 36, 1), np.uint8), "vector": spaces.Box(-1, 1, (3,))}),
            "inline",
        ),
    ],
    ids=["image", "dictionary"],
)
def test_policies_of_torch_are_measured_too(policy: str, space: spaces.Space, backend: str) -> None:
    make = partial(SpaceEnv, space, spaces.Discrete(2))
    with AsyncPPO(policy, make, n_envs=4, backend=backend, **SETTINGS) as model:
        shape(model)
        model.learn(4 * SETTINGS["n_steps"])


def test_numbers_that_are_given_are_kept() -> None:
    for kwargs, expected in [
        ({"n_envs": 6, "n_samplers": 3}, (3, 2)),
        ({"n_envs": 6, "envs_per_sampler": 3}, (2, 3)),
        ({"n_envs": 6, "envs_per_sampler": 3, "n_samplers": "auto"}, (2, 3)),
        ({"n_envs": 6, "n_samplers": 2, "envs_per_sampler": 3}, (2, 3)),
    ]:
        assert shape(AsyncPPO("MlpPolicy", RandomWalk, backend="inline", **kwargs, **SETTINGS)) == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_samplers": "auto"}, "n_samplers='auto' divides environments among samplers: pass their number, n_envs"),
        ({"n_samplers": "many"}, "n_samplers must be an integer of at least 1, or \"auto\", got 'many'"),
        ({"n_envs": 0}, "n_envs must be an integer of at least 1, got 0"),
        ({"n_envs": 5, "n_samplers": 2}, "5 environments cannot be divided among samplers with n_samplers=2"),
        ({"n_envs": 4, "n_samplers": 2, "envs_per_sampler": 4}, "with n_samplers=2, envs_per_sampler=4"),
        ({"n_envs": 3, "env": DummyVecEnv([RandomWalk] * 2)}, "n_envs=3 was given with a VecEnv of 2 environments"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AsyncPPO("MlpPolicy", **{"env": RandomWalk, **kwargs}, **SETTINGS)


def test_with_a_seed_nothing_is_measured(tmp_path: Path) -> None:
    with AsyncPPO("MlpPolicy", partial(WaitingEnv, tmp_path), n_envs=4, seed=0, **SETTINGS) as model:
        assert shape(model)[0] == max(n for n in (1, 2, 4) if n <= available_cpus())
        assert len(list(tmp_path.iterdir())) == 4


def test_the_environments_of_a_vec_env_are_divided() -> None:
    with AsyncPPO("MlpPolicy", DummyVecEnv([RandomWalk] * 4), n_samplers="auto", seed=0, **SETTINGS) as model:
        assert model.n_envs == 4
        assert shape(model)[0] == max(n for n in (1, 2, 4) if n <= available_cpus())


def test_a_loaded_model_divides_as_a_new_one(tmp_path: Path) -> None:
    AsyncPPO("MlpPolicy", RandomWalk, backend="inline", n_samplers=2, **SETTINGS).save(tmp_path / "model")
    model = AsyncPPO.load(tmp_path / "model", env=RandomWalk, n_envs=6, n_samplers=3, backend="inline", device="cpu")
    assert shape(model) == (3, 2)


def test_measuring_leaves_nothing_in_monitor_files(tmp_path: Path) -> None:
    file = tmp_path / "monitor.csv"

    def make() -> gym.Env:
        return Monitor(gym.make("CartPole-v1"), str(file), override_existing=False)

    with AsyncPPO("MlpPolicy", make, n_envs=2, n_samplers="auto", backend="inline", **SETTINGS):
        pass
    header, *rows = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert header.startswith("#{")
    assert all(row.startswith(("#{", "r,l,t")) for row in rows)
