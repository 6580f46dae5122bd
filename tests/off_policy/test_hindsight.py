"""Rewards of goals that HER chooses in hindsight, computed on an environment of the learner's own."""

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from off_policy_pairs import Reach, assert_same_buffers, tiny
from oracle import assert_same_policies
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle import AsyncDQN, AsyncSAC


class ReachWithin(Reach):
    """Its rewards depend on what is set, and on what begins with an episode."""

    threshold = 0.5
    factor: float

    def reset(self, **arguments: Any) -> tuple[dict, dict]:
        self.factor = 1.0
        return super().reset(**arguments)

    def set_factor(self, factor: float) -> None:
        self.factor = factor

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        distance = np.abs(achieved_goal - desired_goal).max(axis=-1)
        return -self.factor * (distance > self.unwrapped.threshold).astype(np.float32)

    def set_threshold(self, threshold: float) -> None:
        self.threshold = threshold


def hindsight(env: Any = ReachWithin, **arguments: Any) -> AsyncSAC:
    arguments = {"n_samplers": 2, "backend": "inline", "replay_buffer_class": HerReplayBuffer, **arguments}
    return AsyncSAC("MultiInputPolicy", env, **tiny(), **arguments)


def rewards(model: AsyncSAC, distance: float) -> float:
    """What HER is told of a goal that is so far away."""
    buffer: Any = model.replay_buffer
    achieved, desired = np.zeros((1, 1), np.float32), np.full((1, 1), distance, np.float32)
    (found,) = buffer.env.env_method("compute_reward", achieved, desired, [{}], indices=[0])
    return float(found[0])


def test_an_environment_whose_rewards_take_a_reset_trains_as_in_sb3() -> None:
    """SB3's own, whose rewards of images look at the state."""

    def bits() -> BitFlippingEnv:
        return BitFlippingEnv(n_bits=3, image_obs_space=True, max_steps=6)

    arguments: dict[str, Any] = {
        "replay_buffer_class": HerReplayBuffer,
        "buffer_size": 500,
        "learning_starts": 20,
        "train_freq": 8,
        "batch_size": 8,
        "seed": 1,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [4]},
    }
    oracle = DQN("MultiInputPolicy", bits(), **arguments).learn(48)
    alike = {"n_samplers": 1, "mode": "sync", "actor": "torch", "learner": "eager", "backend": "inline"}
    with AsyncDQN("MultiInputPolicy", bits, **alike, **arguments) as model:
        model.learn(48)
        assert_same_policies(oracle, model)
        assert_same_buffers(oracle, model)


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_what_is_set_in_samplers_is_set_in_the_learners_environment(backend: str) -> None:
    with hindsight(backend=backend) as model:
        env = model.get_env()
        assert env is not None
        env.env_method("set_threshold", 5.0)
        assert rewards(model, 3.0) == 0.0 and rewards(model, 6.0) == -1.0
        env.env_method("set_threshold", 2.0)
        assert rewards(model, 3.0) == -1.0
        # Which no longer has an effect at the first environment, after whose example rewards are.
        env.env_method("set_threshold", 9.0, indices=[1])
        env.env_method("set_factor", 2.0, indices=[0])
        assert rewards(model, 3.0) == -2.0


def test_attributes_that_are_set_reach_it_as_they_reach_samplers() -> None:
    """SB3 sets them in the outermost wrapper."""
    with hindsight() as model:
        env: Any = model.get_env()
        rewards(model, 1.0)
        env.set_attr("threshold", 7.0)
        rewards(model, 1.0)
        own = model.replay_buffer.env._own
        assert own.envs.get_attr("threshold", [0]) == env.get_attr("threshold", [0]) == [7.0]


def test_plants_are_not_reset_for_it() -> None:
    resets: list[Reach] = []

    class Plant(Reach):
        def reset(self, **arguments: Any) -> tuple[dict, dict]:
            resets.append(self)
            return super().reset(**arguments)

    with hindsight(Plant, n_samplers=1, mode="realtime", fallback_action="hold") as model:
        assert rewards(model, 3.0) == -1.0 and resets == []
        model.learn(100)
        assert model._n_updates > 0 and len(set(map(id, resets))) == 1


class DrawsFromEverywhere(ReachWithin):
    """Draws from the process's random streams where it is built and where it begins."""

    def __init__(self) -> None:
        np.random.rand(), random.random(), th.rand(1)

    def reset(self, **arguments: Any) -> tuple[dict, dict]:
        np.random.rand(), random.random(), th.rand(1)
        return super().reset(**arguments)


def test_it_leaves_random_streams_alone() -> None:
    with hindsight(DrawsFromEverywhere) as model:
        before = np.random.get_state()[2], random.getstate(), th.get_rng_state().tolist()
        rewards(model, 1.0)
        assert before == (np.random.get_state()[2], random.getstate(), th.get_rng_state().tolist())


class SetThreshold(BaseCallback):
    """Sets the threshold in the middle of the training."""

    def _on_step(self) -> bool:
        if self.n_calls == 20:
            self.training_env.env_method("set_threshold", 100.0)
        return True


def test_a_callback_changes_rewards_in_hindsight() -> None:
    with hindsight(mode="sync") as model:
        model.learn(200, callback=SetThreshold())
        buffer: Any = model.replay_buffer
        assert (buffer.sample(100, env=None).rewards == 0.0).float().mean() > 0.5 and rewards(model, 50.0) == 0.0


def test_rewards_of_vectorised_environments_are_those_of_single_ones() -> None:
    def reaching(n: int) -> gym.vector.VectorEnv:
        return gym.vector.SyncVectorEnv([ReachWithin] * n)

    single, vectorized = (hindsight(env, envs_per_sampler=2).learn(200) for env in (ReachWithin, reaching))
    assert_same_buffers(single, vectorized)
    assert_same_policies(single, vectorized)
