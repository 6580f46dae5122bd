"""EnvPool inside samplers: the pools of all samplers are one pool that is divided among them."""

import os
import signal
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from lifecycle_helpers import SETTINGS
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv, SamplerWarning
from sb3_walle.samplers.building import build_envs

envpool = pytest.importorskip("envpool")
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting")

STEPS = 30


def pool(n: int, task: str = "CartPole-v1", **settings: Any) -> Any:
    return envpool.make(task, env_type="gymnasium", num_envs=n, **settings)


def told_by_pool(env: Any, actions: np.ndarray) -> list[Any]:
    """What a pool shows where rows are reset as soon as their episode has ended."""
    observations, _ = env.reset()
    told = [observations.tolist()]
    for some in actions:
        observations, rewards, ends, cuts, infos = env.step(some)
        dones, last = ends | cuts, observations.copy()
        rows = np.flatnonzero(dones).astype(np.int32)
        elapsed = infos["elapsed_step"].tolist()
        observations = observations.copy()
        if len(rows):
            observations[rows] = env.reset(rows)[0]
        told.append([observations.tolist(), rewards.tolist(), dones.tolist(), cuts.tolist(), last.tolist(), elapsed])
    return told


def told_by_samplers(env: SamplerVecEnv, actions: np.ndarray) -> list[Any]:
    told: list[Any] = [env.reset().tolist()]
    for some in actions:
        observations, rewards, dones, infos = env.step(some)
        last = [
            info["terminal_observation"] if done else observation
            for info, done, observation in zip(infos, dones, observations, strict=True)
        ]
        cuts = [info["TimeLimit.truncated"] for info in infos]
        elapsed = [info["elapsed_step"] for info in infos]
        told.append([observations.tolist(), rewards.tolist(), dones.tolist(), cuts, np.array(last).tolist(), elapsed])
        assert [("episode" in info) for info in infos] == dones.tolist()
    return told


ACTIONS = np.random.default_rng(1).integers(2, size=(STEPS, 4))


@pytest.mark.parametrize("settings", [{}, {"seed": 7}, {"seed": [3, 9, 27, 81]}, {"max_episode_steps": 6}])
def test_samplers_make_the_steps_of_one_pool(settings: dict[str, Any]) -> None:
    with SamplerVecEnv([lambda n: pool(n, **settings)] * 4, envs_per_sampler=4, backend="inline") as env:
        assert told_by_samplers(env, ACTIONS) == told_by_pool(pool(4, **settings), ACTIONS)


@pytest.mark.parametrize("settings", [{}, {"seed": 7}, {"max_episode_steps": 6}])
def test_pools_of_several_samplers_are_parts_of_one(settings: dict[str, Any]) -> None:
    """By default EnvPool gives every pool the same seed, so that samplers would play the same episodes."""
    with SamplerVecEnv([lambda n: pool(n, **settings)] * 4, envs_per_sampler=2) as env:
        assert told_by_samplers(env, ACTIONS) == told_by_pool(pool(4, **settings), ACTIONS)


def test_they_are_seeded_as_sb3_seeds_environments() -> None:
    def seeded(n: int, seed: int) -> Any:
        return pool(n, seed=seed)

    expected = told_by_pool(pool(4, seed=5), ACTIONS)
    for build in (pool, seeded):
        with SamplerVecEnv([build] * 4, envs_per_sampler=2, backend="inline") as env:
            for _ in range(2):
                env.seed(5)
                assert told_by_samplers(env, ACTIONS) == expected
            # Otherwise random streams continue.
            assert env.reset().tolist() != expected[0]


def test_successor_of_a_dead_sampler_plays_other_episodes() -> None:
    firsts = []
    for incarnation in range(3):
        envs = build_envs([pool] * 2, incarnation=incarnation)
        envs.reset([None] * 2, [{}] * 2)
        firsts += [tuple(observation) for observation in envs.observations]
    assert len(set(firsts)) == 6


class Kill(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls == 40:
            os.kill(self.training_env.env_method("process_id")[3], signal.SIGKILL)
        return True


class Identifiable(gym.vector.VectorWrapper):
    def process_id(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("wrap", [gym.wrappers.vector.RecordEpisodeStatistics, Identifiable, lambda env: env])
def test_training_counts_exactly_whatever_is_around_a_pool(wrap: Any) -> None:
    model = AsyncPPO(
        "MlpPolicy", lambda n: wrap(pool(n)), n_samplers=2, envs_per_sampler=4, learner="eager", **SETTINGS
    )
    n_kills = int(wrap is Identifiable)
    if n_kills:
        with pytest.warns(SamplerWarning, match="SIGKILL"):
            model.learn(3 * 32 * 8, callback=Kill())
    else:
        model.learn(3 * 32 * 8)
    assert model.num_timesteps == 3 * 32 * 8
    assert len(model.ep_info_buffer) > 10
    assert evaluate_policy(model, model.get_env(), n_eval_episodes=8)[0] > 5
    model.get_env().close()


def test_off_policy_training_and_normalised_training() -> None:
    model = AsyncDQN(
        "MlpPolicy", pool, n_samplers=2, envs_per_sampler=2, backend="inline", learner="eager", learning_starts=50,
        batch_size=8, buffer_size=400, train_freq=2,
    )  # fmt: skip
    assert model.learn(200).num_timesteps == 200
    env = VecNormalize(VecFrameStack(SamplerVecEnv([lambda n: pool(n, "HalfCheetah-v4")] * 4, 2, "inline"), 2))
    normalized = AsyncPPO("MlpPolicy", env, learner="eager", **SETTINGS)
    assert normalized.learn(32 * 4).num_timesteps == 32 * 4
    assert env.obs_rms.count == pytest.approx(32 * 4 + 4) and env.observation_space.shape == (34,)


def test_images_have_their_channels_first() -> None:
    with SamplerVecEnv([lambda n: pool(n, "Pong-v5", seed=1)] * 2, envs_per_sampler=2, backend="inline") as env:
        bare = pool(2, "Pong-v5", seed=1)
        assert (env.observation_space.shape, env.observation_space.dtype) == ((4, 84, 84), np.uint8)
        np.testing.assert_array_equal(env.reset(), bare.reset()[0])
        for action in range(6):
            actions = np.array([action, 5 - action])
            np.testing.assert_array_equal(env.step(actions)[0], bare.step(actions)[0])


def test_attributes_are_those_of_the_pool() -> None:
    with SamplerVecEnv([pool] * 4, envs_per_sampler=2, backend="inline") as env:
        assert [config["num_envs"] for config in env.get_attr("config")] == [2] * 4
        assert not env.has_attr("gravity")
        with pytest.raises(AttributeError, match=r"CartPoleGymnasiumEnvPool has no attribute 'gravity'"):
            env.get_attr("gravity")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda n: pool(n, batch_size=1), "Leave out batch_size=1"),
        (lambda n: envpool.make("CartPole-v1", env_type="dm", num_envs=n), 'env_type="gymnasium"'),
        (lambda n: pool(n + 1), "of 3 environments, but each sampler has envs_per_sampler=2"),
    ],
)
def test_pools_that_samplers_cannot_step(build: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SamplerVecEnv([build] * 2, envs_per_sampler=2, backend="inline")
