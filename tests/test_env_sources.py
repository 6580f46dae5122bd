"""Whatever PPO takes as an environment, AsyncPPO takes, and puts into samplers if that is possible."""

import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.env_sources import available_cpus

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "backend": "inline", "device": "cpu"}


def trained(env: Any, **kwargs: Any) -> AsyncPPO:
    model = AsyncPPO("MlpPolicy", env, **{**SETTINGS, **kwargs})
    model.learn(64 * model.n_envs)
    assert model.num_timesteps == 64 * model.n_envs
    return model


def samplers(model: AsyncPPO) -> SamplerVecEnv:
    assert isinstance(model.env, SamplerVecEnv)
    return model.env


@pytest.mark.parametrize("env", ["CartPole-v1", StampedEnv, lambda: StampedEnv(3), lambda: gym.make("CartPole-v1")])
def test_ids_and_factories_are_built_in_every_sampler(env: Any) -> None:
    model = trained(env, n_samplers=3, envs_per_sampler=2)
    assert (samplers(model).n_samplers, samplers(model).envs_per_sampler, model.n_envs) == (3, 2, 6)


def test_one_sampler_for_each_cpu_is_the_default() -> None:
    assert samplers(trained(StampedEnv)).n_samplers == available_cpus()


def test_an_environment_with_a_spec_is_rebuilt_with_its_wrappers() -> None:
    env = gym.wrappers.TimeLimit(gym.make("CartPole-v1", sutton_barto_reward=True), 5)
    model = trained(env, n_samplers=2)
    assert samplers(model).env_is_wrapped(gym.wrappers.TimeLimit) == [True, True]
    assert samplers(model).get_attr("_sutton_barto_reward") == [True, True]
    assert all(info["l"] <= 5 for info in model.ep_info_buffer or ())


def test_an_environment_without_a_spec_is_moved_by_pickling() -> None:
    model = trained(StampedEnv(identity=7), n_samplers=2)
    assert samplers(model).get_attr("identity") == [7, 7]


def test_pickled_copies_do_not_share_their_random_stream() -> None:
    env = RandomWalk()
    env.reset()
    model = AsyncPPO("MlpPolicy", env, n_samplers=3, **SETTINGS)
    assert len({tuple(observation) for observation in samplers(model).reset()}) == 3


class LockedEnv(StampedEnv):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_an_environment_that_cannot_be_moved_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="Pass a function that builds it"):
        AsyncPPO("MlpPolicy", LockedEnv(), **SETTINGS)


def test_the_sb3_idiom_works() -> None:
    env = make_vec_env("CartPole-v1", 4, seed=1, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"envs_per_sampler": 2})
    model = trained(env)
    assert model.get_env() is env and samplers(model).n_samplers == 2
    env.close()


@pytest.mark.parametrize(("n_samplers", "expected"), [(None, (4, 1)), (2, (2, 2)), (1, (1, 4))])
def test_a_dummy_vec_env_hands_its_environments_over(n_samplers: int | None, expected: tuple[int, int]) -> None:
    given = DummyVecEnv([lambda i=i: Monitor(StampedEnv(i)) for i in range(4)])
    given.seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = trained(given, n_samplers=n_samplers)
    assert (samplers(model).n_samplers, samplers(model).envs_per_sampler) == expected
    assert samplers(model).get_attr("identity") == [0, 1, 2, 3]


def test_a_seeded_dummy_vec_env_stays_seeded() -> None:
    given = make_vec_env("CartPole-v1", 2, seed=11)
    expected = make_vec_env("CartPole-v1", 2, seed=11).reset()
    model = AsyncPPO("MlpPolicy", given, **SETTINGS)
    np.testing.assert_array_equal(samplers(model).reset(), expected)


class Doubled(VecEnvWrapper):
    """A wrapper of the user's own."""

    def reset(self) -> np.ndarray:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, 2 * rewards, dones, infos


FOREIGN_ENVS = {
    "SubprocVecEnv": lambda: make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv),
    "VecNormalize in SubprocVecEnv": lambda: VecNormalize(make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv)),
    "pickling it failed": lambda: DummyVecEnv([LockedEnv]),
    "Doubled": lambda: Doubled(make_vec_env("CartPole-v1", 2)),
}


@pytest.mark.parametrize("name", FOREIGN_ENVS)
def test_any_other_vec_env_trains_in_lockstep_with_one_warning(name: str) -> None:
    env = FOREIGN_ENVS[name]()
    with pytest.warns(UserWarning, match=name.split()[-1]) as caught:
        model = AsyncPPO("MlpPolicy", env, **SETTINGS)
    assert len(caught) == 1
    # The warning points to this file, not into the package.
    assert caught[0].filename == __file__
    assert model.env is env
    model.learn(128)
    assert model.num_timesteps >= 128
    env.close()


def test_loading_into_a_vec_env_in_lockstep_warns_once(tmp_path: Path) -> None:
    AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, **SETTINGS).save(tmp_path / "model")
    env = Doubled(make_vec_env("CartPole-v1", 2))
    with pytest.warns(UserWarning, match="Doubled") as caught:
        AsyncPPO.load(tmp_path / "model", env=env)
    assert len(caught) == 1


def test_wrappers_around_a_dummy_vec_env_are_kept_around_the_samplers() -> None:
    inside = make_vec_env("CartPole-v1", 4, seed=11)
    env = VecFrameStack(VecNormalize(inside), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = trained(env, n_samplers=2)
    samplers = env.unwrapped
    assert model.env is env and isinstance(samplers, SamplerVecEnv)
    assert (samplers.n_samplers, samplers.envs_per_sampler) == (2, 2)
    assert env.venv.obs_rms.count > 4 * 64


def test_wrappers_get_their_own_environments_back_if_construction_fails() -> None:
    inside = make_vec_env("CartPole-v1", 2)
    env = VecNormalize(inside)
    with pytest.raises(TypeError, match="n_smaplers"):
        AsyncPPO("MlpPolicy", env, n_smaplers=2)
    assert env.venv is inside
    PPO("MlpPolicy", env, n_steps=32, batch_size=32).learn(64)


def test_a_wrapper_that_samplers_cannot_run_is_refused_with_the_remedy() -> None:
    env = Doubled(SamplerVecEnv([StampedEnv] * 2, backend="inline"))
    with pytest.raises(ValueError, match=r"Doubled .*VecNormalize.* vec_wrapper=lambda venv: Doubled"):
        AsyncPPO("MlpPolicy", env, **SETTINGS)
    # The samplers are the user's, and are still there.
    assert env.reset().shape == (2, 3)
    with pytest.raises(ValueError, match="more than one VecNormalize"):
        AsyncPPO("MlpPolicy", VecNormalize(VecNormalize(SamplerVecEnv([StampedEnv], backend="inline"))), **SETTINGS)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"mode": "fast"}, ValueError, "mode must be one of .*'pipelined', 'sync', 'free'.*'fast'"),
        ({"backend": "cloud"}, ValueError, "backend must be one of .*'process', 'inline'.*'cloud'"),
        ({"actor": "jax"}, ValueError, "actor must be one of .*'auto', 'torch', 'numpy'.*'jax'"),
        ({"n_samplers": 2.5}, ValueError, "n_samplers must be an integer of at least 1, got 2.5"),
        ({"n_samplers": 0}, ValueError, "n_samplers must be an integer of at least 1, got 0"),
        ({"envs_per_sampler": 0}, ValueError, "envs_per_sampler must be an integer of at least 1, got 0"),
        ({"max_policy_lag": 2}, ValueError, "max_policy_lag=2 .* mode='pipelined'.* mode='free'"),
        ({"mode": "free", "max_policy_lag": 0}, ValueError, "at least 1, got 0.* mode='sync'"),
        ({"n_smaplers": 3}, TypeError, "n_smaplers"),
    ],
)
def test_a_wrong_argument_fails_in_the_constructor(kwargs: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AsyncPPO("MlpPolicy", "CartPole-v1", **{**SETTINGS, **kwargs})


def test_an_unknown_id_fails_in_gymnasiums_own_words() -> None:
    with pytest.raises(gym.error.NameNotFound, match="NoSuchRobot"):
        AsyncPPO("MlpPolicy", "NoSuchRobot-v0")


def test_something_that_is_no_environment_is_refused() -> None:
    with pytest.raises(TypeError, match="env must be an env id, a function, an environment or a VecEnv"):
        AsyncPPO("MlpPolicy", 3)


def test_a_policy_that_numpy_cannot_run_is_named() -> None:
    import torch.nn as nn

    with pytest.raises(ValueError, match=r"'Mish' \(mlp_extractor.policy_net.1\)"):
        AsyncPPO("MlpPolicy", "CartPole-v1", actor="numpy", policy_kwargs={"activation_fn": nn.Mish}, **SETTINGS)


def test_numbers_that_contradict_the_given_samplers_are_refused() -> None:
    env = SamplerVecEnv([StampedEnv] * 4, envs_per_sampler=2, backend="inline")
    with pytest.raises(ValueError, match="has 2 samplers of 2 environments"):
        AsyncPPO("MlpPolicy", env, n_samplers=4, **SETTINGS)
    with pytest.raises(ValueError, match="cannot be divided among 3 samplers"):
        AsyncPPO("MlpPolicy", DummyVecEnv([StampedEnv] * 4), n_samplers=3, **SETTINGS)
