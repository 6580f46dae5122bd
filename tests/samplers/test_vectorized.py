"""Vectorised environments are recognised, and the error says what works."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_envs import StampedEnv

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv
from sb3_walle.samplers.vectorized import is_vectorized


class OldPool(gym.Env):
    """Of the shape of EnvPool's before Gymnasium 1.0: the number of environments is in its config."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Discrete(2)

    class OwnSpec:
        """Has nothing of Gymnasium's."""

    def __init__(self, n_envs: int = 4) -> None:
        self.spec: Any = self.OwnSpec()
        self.config = {"num_envs": n_envs, "batch_size": n_envs, "task_id": "CartPole-v1"}

    def __len__(self) -> int:
        return self.config["num_envs"]


class Pool(gym.vector.VectorEnv, gym.Env):
    """Of the shape of EnvPool's since Gymnasium 1.0."""

    single_observation_space = observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    single_action_space = action_space = gym.spaces.Discrete(2)

    def __init__(self, n_envs: int = 4) -> None:
        self.spec: Any = OldPool.OwnSpec()
        self.num_envs = n_envs


class OnGpu(gym.Env):
    """Of the shape of simulators that step all environments on a GPU."""

    single_observation_space = observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    single_action_space = action_space = gym.spaces.Discrete(2)

    def __init__(self, n_envs: int = 4) -> None:
        self.num_envs = n_envs


BUILDERS = {
    "EnvPool": Pool,
    "EnvPool of one": lambda: Pool(1),
    "old EnvPool": OldPool,
    "GPU": OnGpu,
    "make_vec": lambda: gym.make_vec("CartPole-v1", 3, vectorization_mode="sync"),
    "vector wrapper": lambda: gym.wrappers.vector.ClipReward(gym.make_vec("CartPole-v1", 2), -1, 1),
}
builders = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
says_what_works = pytest.raises(
    TypeError, match=r"is a vectorised environment.*lambda n: gym.make_vec.* n_samplers .*envs_per_sampler"
)


@builders
@pytest.mark.parametrize("algorithm", [AsyncPPO, AsyncDQN])
def test_as_an_environment(build: Callable[[], Any], algorithm: Any) -> None:
    with says_what_works:
        algorithm("MlpPolicy", build(), n_samplers=2)


def test_as_what_a_function_of_single_environments_returns() -> None:
    for build in BUILDERS.values():
        if getattr(build(), "num_envs", 4) > 1:
            with says_what_works:
                SamplerVecEnv([build], backend="inline")


@pytest.mark.parametrize("build", [OldPool, OnGpu])
def test_of_a_kind_that_samplers_do_not_step(build: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"is a vectorised environment of a kind .*VectorEnv, EnvPool's"):
        SamplerVecEnv([lambda n: build()] * 4, envs_per_sampler=4, backend="inline")


def test_that_does_not_say_when_it_resets() -> None:
    with pytest.raises(TypeError, match=r'Pool does not say when it resets .*"autoreset_mode"'):
        SamplerVecEnv([lambda n: Pool()] * 4, envs_per_sampler=4, backend="inline")


def test_as_what_a_function_returns_in_another_process() -> None:
    with says_what_works as caught:
        SamplerVecEnv([Pool] * 2)
    assert "Traceback" not in str(caught.value)


@builders
def test_through_sb3_s_make_vec_env(build: Callable[[], Any]) -> None:
    with says_what_works:
        make_vec_env(build, 2, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"backend": "inline"})


def test_inside_of_wrappers_and_a_dummy_vec_env() -> None:
    with says_what_works:
        AsyncPPO("MlpPolicy", Monitor(OldPool()))
    with says_what_works:
        AsyncPPO("MlpPolicy", DummyVecEnv([OnGpu]))


def test_with_another_number_of_environments_than_a_sampler_has() -> None:
    with pytest.raises(TypeError, match=r"of 3 environments, but each sampler has envs_per_sampler=2 of them.*=3"):
        SamplerVecEnv([BUILDERS["make_vec"]] * 2, envs_per_sampler=2, backend="inline")


def test_among_functions_of_single_environments() -> None:
    with says_what_works:
        SamplerVecEnv([BUILDERS["vector wrapper"], StampedEnv], envs_per_sampler=2, backend="inline")


def test_single_environments_where_a_number_of_them_was_asked_for() -> None:
    with pytest.raises(TypeError, match=r"it was asked for 2 environments .* takes no argument"):
        SamplerVecEnv([lambda n: StampedEnv()] * 2, envs_per_sampler=2, backend="inline")


class ManyAgents(StampedEnv):
    """Says how many environments of some kind it has inside, and steps as one."""

    num_envs = 5


@pytest.mark.parametrize("build", [StampedEnv, ManyAgents, lambda: OnGpu(1), lambda: gym.make("CartPole-v1")])
def test_single_environments_are_single(build: Callable[[], gym.Env]) -> None:
    assert not is_vectorized(build())


def test_another_error_of_a_function_stays_its_own() -> None:
    def build() -> gym.Env:
        pool = Pool()
        raise ArithmeticError(f"{pool.num_envs} are too many")

    with pytest.raises(RuntimeError, match="ArithmeticError: 4 are too many"):
        SamplerVecEnv([build], backend="inline")
