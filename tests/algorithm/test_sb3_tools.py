"""SB3's tools for environments and models, with environments that are in samplers."""

import warnings
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, SamplerError, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "seed": 3, "device": "cpu"}


def checked_walk() -> gym.Env:
    env = RandomWalk()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    return env


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_environments_can_be_checked_where_they_are_built(backend: str) -> None:
    with SamplerVecEnv([checked_walk] * 2, backend=backend) as env:
        AsyncPPO("MlpPolicy", env, **SETTINGS).learn(128)


def test_an_environment_whose_copies_are_in_samplers_is_left_as_it_was() -> None:
    env = checked_walk()
    AsyncPPO("MlpPolicy", env, n_samplers=2, backend="inline", **SETTINGS).learn(128)
    check_env(env)


def test_a_failed_check_ends_the_construction_with_its_own_words() -> None:
    class Wrong(RandomWalk):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return super().reset(seed=seed)[0]

    def build() -> gym.Env:
        check_env(Wrong())
        return Wrong()

    with pytest.raises(SamplerError, match="reset"):
        SamplerVecEnv([build], backend="inline")


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_is_the_same_on_samplers_and_on_a_separate_env(deterministic: bool) -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=2, backend="inline", **SETTINGS).learn(512)
    results = []
    for env in (model.get_env(), make_vec_env(RandomWalk, 2)):
        env.seed(9)
        th.manual_seed(9)
        results.append(evaluate_policy(model, env, 10, deterministic, return_episode_rewards=True))
    assert results[0] == results[1]
    assert len(set(results[0][0])) == 10
    model.learn(128)


def test_evaluation_in_the_middle_of_training_disturbs_neither() -> None:
    """On an environment of one's own; the samplers are at work."""

    def returns_while_training(evaluated_on: gym.Env | None) -> list[float]:
        model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=2, backend="inline", **SETTINGS)

        def evaluate(*_: Any) -> bool:
            if evaluated_on is not None and model.num_timesteps % 64 == 0:
                assert len(evaluate_policy(model, evaluated_on, 2, return_episode_rewards=True)[0]) == 2
            return True

        model.learn(512, callback=evaluate)
        return [info["r"] for info in model.ep_info_buffer or ()]

    assert returns_while_training(Monitor(RandomWalk())) == returns_while_training(None) != []
