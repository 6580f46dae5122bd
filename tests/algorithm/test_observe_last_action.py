"""The argument ``observe_last_action``: what policies learn from, and models that are saved with it."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_walle import AsyncDQN, AsyncPPO, AsyncTD3, LastActionsObservation

FEW: dict[str, Any] = {"n_samplers": 1, "backend": "inline", "learner": "eager", "device": "cpu"}


def cartpoles(n_envs: int) -> gym.vector.VectorEnv:
    return gym.make_vec("CartPole-v1", n_envs)


def test_a_policy_learns_from_its_last_actions(tmp_path: Path) -> None:
    with AsyncTD3("MlpPolicy", "Pendulum-v1", observe_last_action=2, seed=0, **FEW) as model:
        model.learn(30)
        buffer: Any = model.replay_buffer
        # Pendulum's actions are in [-2, 2], those of the buffer in [-1, 1].
        actions = 2 * buffer.actions[:30, 0, 0]
        expected = np.stack([actions[:28], actions[1:29]], axis=1)
        np.testing.assert_allclose(buffer.observations[2:30, 0, 3:], expected, rtol=1e-5)
        np.testing.assert_array_equal(buffer.observations[0, 0, 3:], [0, 0])
        model.save(tmp_path / "model")
        model.set_env(lambda: gym.make("Pendulum-v1"))
        assert model.env is not None and model.env.observation_space.shape == (5,)
    with AsyncTD3.load(tmp_path / "model", "Pendulum-v1", n_samplers=1, backend="inline") as loaded:
        loaded.learn(5)
        assert loaded.observation_space.shape == (5,)
    env = DummyVecEnv([lambda: LastActionsObservation(gym.make("Pendulum-v1"), 2)])
    with AsyncTD3.load(tmp_path / "model", env, backend="inline") as loaded:
        loaded.learn(5)


def test_any_algorithm_and_process_can_have_it() -> None:
    arguments = {**FEW, "backend": "process", "n_steps": 16, "batch_size": 16}
    with AsyncPPO("MlpPolicy", gym.make("CartPole-v1"), observe_last_action=1, **arguments) as model:
        model.learn(16)
        assert model.observation_space.shape == (6,)


@pytest.mark.parametrize(
    ("env", "n_actions", "mentioned"),
    [
        (make_vec_env("CartPole-v1"), 1, "put LastActionsObservation around each"),
        (cartpoles, 1, "a single one"),
        ("CartPole-v1", 0, "at least 1, got 0"),
    ],
)
def test_what_cannot_have_it_is_refused(env: Any, n_actions: int, mentioned: str) -> None:
    with pytest.raises(ValueError, match=mentioned):
        AsyncDQN("MlpPolicy", env, observe_last_action=n_actions, **FEW)
