"""With samplers in the user's own process, environments are objects that she can look at, as with SB3."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from toy_envs import FailingEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, AsyncSAC, SamplerVecEnv, SamplerWarning

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "device": "cpu", "learner": "eager"}


class Actions(gym.Wrapper):
    """Keeps the actions that it is given."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.actions: list[Any] = []

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        return super().step(action)


class Unpicklable(Actions):
    """Cannot be copied."""

    def __reduce__(self) -> Any:
        raise TypeError("there is only one of these")


@pytest.mark.parametrize("wrapper", [Actions, Unpicklable])
def test_the_users_own_environment_makes_the_steps(wrapper: type[Actions]) -> None:
    env = wrapper(RandomWalk())
    model = AsyncPPO("MlpPolicy", env, n_samplers=1, backend="inline", mode="sync", **SETTINGS).learn(64)
    taken = np.array(env.actions)
    assert taken.shape == (64, 1)
    np.testing.assert_array_equal(taken[-32:], np.clip(model.rollout_buffer.actions.reshape(32, 1), -1, 1))


def test_an_off_policy_algorithm_steps_the_users_own_environment() -> None:
    env = Actions(RandomWalk())
    AsyncSAC("MlpPolicy", env, n_samplers=1, backend="inline", mode="sync", learning_starts=10).learn(20)
    assert len(env.actions) == 20


def test_own_environment_trains_as_in_sb3_to_the_last_bit() -> None:
    rewards = []
    for algorithm, further in ((PPO, {}), (AsyncPPO, {"n_samplers": 1, "backend": "inline", "actor": "torch"})):
        env = RandomWalk()
        env.reset(seed=7)
        settings = {name: value for name, value in SETTINGS.items() if name != "learner" or algorithm is AsyncPPO}
        model = algorithm("MlpPolicy", env, seed=None, **settings, **further)
        # The random stream that it has brought, not one that samplers were given.
        rewards.append([model.get_env().reset(), env.np_random.integers(1_000_000)])
    np.testing.assert_array_equal(rewards[0][0], rewards[1][0])
    assert rewards[0][1] == rewards[1][1]


def test_the_environments_of_a_dummy_vec_env_stay_the_same_objects() -> None:
    venv = DummyVecEnv([lambda: StampedEnv(0), lambda: StampedEnv(1)])
    model = AsyncPPO("MlpPolicy", VecFrameStack(venv, 2), backend="inline", **SETTINGS)
    env = model.get_env()
    assert env is not None
    assert [inner.unwrapped for inner in env.unwrapped.envs] == [inner.unwrapped for inner in venv.envs]


def test_of_several_samplers_the_first_has_the_users_own_environment() -> None:
    env = StampedEnv(3)
    model = AsyncPPO("MlpPolicy", env, n_samplers=2, backend="inline", **SETTINGS)
    samplers = model.get_env()
    assert isinstance(samplers, SamplerVecEnv)
    first, second = (inner.unwrapped for inner in samplers.envs)
    assert first is env and second is not env and second.identity == 3


def test_a_sampler_that_takes_the_place_of_another_gets_a_copy() -> None:
    env = FailingEnv(fails_at=40)
    model = AsyncPPO("MlpPolicy", env, n_samplers=1, backend="inline", **SETTINGS)
    with pytest.warns(SamplerWarning, match="the simulation diverged"):
        model.learn(64)
    assert model.get_env().envs[0].unwrapped is not env


class Lengths(BaseCallback):
    """Looks at the environments at the end of each rollout."""

    def _on_rollout_end(self) -> None:
        assert [type(env) for env in self.training_env.envs] == [Monitor, Monitor, Monitor, Monitor]
        assert [env.get_wrapper_attr("identity") for env in self.training_env.envs] == [0, 1, 2, 3]

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_callbacks_find_the_environments_in_their_order(mode: str) -> None:
    env = SamplerVecEnv([lambda i=i: StampedEnv(i) for i in range(4)], envs_per_sampler=2, backend="inline")
    AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS).learn(256, callback=Lengths())


def test_environments_in_other_processes_are_no_objects_here() -> None:
    with SamplerVecEnv([StampedEnv]) as env:
        assert not hasattr(env, "envs")
        with pytest.raises(AttributeError, match=r"Use get_attr\(\), set_attr\(\) and env_method\(\), or backend='inl"):
            env.envs  # noqa: B018
