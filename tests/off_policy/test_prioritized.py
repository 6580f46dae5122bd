"""AsyncDQN with prioritised replay: SB3's numbers where all weights are 1, in all modes, saved and loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from off_policy_pairs import assert_same_buffers, tiny
from oracle import assert_same_policies
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import StampedEnv

from sb3_walle import AsyncDQN, AsyncOffPolicyMixin, PrioritizedReplayBuffer, SamplerVecEnv
from sb3_walle.collection.modes import MODES

N_SAMPLERS = 3
PRIORITIZED: dict[str, Any] = {"replay_buffer_class": PrioritizedReplayBuffer, "backend": "inline"}


class EqualShares(ReplayBuffer):
    """SB3's buffer, but one sample comes from each of as many shares of it as there are samples."""

    def sample(self, batch_size: int, env: Any = None) -> Any:
        shares = (np.arange(batch_size) + np.random.random(batch_size)) / batch_size
        rows, self.columns = np.divmod((shares * self.size() * self.n_envs).astype(int), self.n_envs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np.random, "randint", lambda *_, **__: self.columns)
            return self._get_samples(rows, env)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_training_equals_sb3_where_all_weights_are_one(n_envs: int) -> None:
    further = {"exploration_fraction": 0.5, "target_update_interval": 50, "gradient_steps": 2}
    oracle = DQN("MlpPolicy", make_vec_env("CartPole-v1", n_envs), replay_buffer_class=EqualShares, **tiny(**further))
    oracle.learn(130)
    lockstep: dict[str, Any] = {"n_samplers": 1, "envs_per_sampler": n_envs, "mode": "sync", "actor": "torch"}
    uniform = {"replay_buffer_kwargs": {"alpha": 0.0, "beta": 0.0, "final_beta": 0.0}}
    arguments = {**lockstep, **PRIORITIZED, **uniform, **tiny(**further), "learner": "eager"}
    with AsyncDQN("MlpPolicy", "CartPole-v1", **arguments) as model:
        model.learn(130)
        assert model._n_updates == oracle._n_updates > 0
        assert_same_policies(oracle, model)
        assert_same_buffers(oracle, model)


def assert_all_can_be_sampled(buffer: PrioritizedReplayBuffer) -> None:
    stored = np.zeros((buffer.buffer_size, buffer.n_envs), dtype=bool)
    stored[: buffer.size()] = True
    assert np.array_equal(buffer.priorities > 0, stored)


@pytest.mark.parametrize("mode", MODES)
def test_priorities_are_those_of_errors_in_every_mode(mode: str) -> None:
    arguments = {**PRIORITIZED, **tiny(buffer_size=100), "mode": mode, "train_freq": 4, "learner": "eager"}
    with AsyncDQN("MlpPolicy", StampedEnv, n_samplers=N_SAMPLERS, **arguments) as model:
        for n_steps in (60, 150):
            model.learn(n_steps, reset_num_timesteps=False)
            buffer = model.replay_buffer
            assert isinstance(buffer, PrioritizedReplayBuffer)
            assert_all_can_be_sampled(buffer)
            assert buffer.max_priority > 1 and len(np.unique(buffer.priorities)) > 16
        assert buffer.full
        assert model._current_progress_remaining == pytest.approx(0, abs=0.1)
        # At the end of training, weights correct for all of the priorities.
        samples = buffer.sample_weighted(100, progress_remaining=0.0)
        corrected = samples.weights[:, 0].numpy() * buffer.priorities.reshape(-1)[samples.indices]
        np.testing.assert_allclose(corrected, corrected[0], rtol=1e-5)


def test_training_is_reproducible_and_the_same_on_every_backend() -> None:
    found = []
    for backend in ("inline", "process"):
        arguments = {**PRIORITIZED, **tiny(), "learner": "eager", "backend": backend}
        with AsyncDQN("MlpPolicy", StampedEnv, n_samplers=2, **arguments) as model:
            model.learn(100)
            found.append((model.policy.state_dict(), model.replay_buffer.priorities))  # type: ignore[union-attr]
    (weights, priorities), (others, other_priorities) = found
    assert all(th.equal(value, others[name]) for name, value in weights.items())
    assert np.array_equal(priorities, other_priorities)


class StampedDictionaries(StampedEnv):
    observation_space = spaces.Dict({"stamp": StampedEnv.observation_space})

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return {"stamp": observation}, info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return {"stamp": observation}, *rest


def test_a_buffer_that_was_saved_continues(tmp_path: Path) -> None:
    arguments = {**PRIORITIZED, **tiny(learning_starts=0), "learner": "eager", "n_samplers": 2}
    arguments["replay_buffer_kwargs"] = {"alpha": 0.7, "n_steps": 2}
    with AsyncDQN("MultiInputPolicy", StampedDictionaries, **arguments) as model:
        model.learn(60)
        model.save_replay_buffer(tmp_path / "buffer")
        model.save(tmp_path / "model")
    with AsyncDQN.load(tmp_path / "model", StampedDictionaries, n_samplers=2, backend="inline") as loaded:
        assert isinstance(loaded.replay_buffer, PrioritizedReplayBuffer)
        assert (loaded.replay_buffer.size(), loaded.replay_buffer.alpha) == (0, 0.7)
        loaded.load_replay_buffer(tmp_path / "buffer")
        buffer: Any = model.replay_buffer
        assert np.array_equal(loaded.replay_buffer.priorities, buffer.priorities)
        assert loaded.replay_buffer.max_priority == buffer.max_priority
        loaded.learn(20, reset_num_timesteps=False)
        assert_all_can_be_sampled(loaded.replay_buffer)
        assert 2 * loaded.replay_buffer.size() == loaded.num_timesteps > model.num_timesteps


class OwnTraining(DQN):
    """Learns nothing, but weights and returns errors."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        buffer: Any = self.replay_buffer
        samples = buffer.sample_weighted(batch_size, progress_remaining=0.5)
        assert samples.weights.shape == (batch_size, 1)
        buffer.update_priorities(samples.indices, np.full(batch_size, 9.0))


class AsyncOwnTraining(AsyncOffPolicyMixin, OwnTraining):
    learns_from_weights = True


def test_an_update_of_ones_own_can_use_it() -> None:
    with AsyncOwnTraining("MlpPolicy", StampedEnv, n_samplers=2, **PRIORITIZED, **tiny()) as model:
        model.learn(60)
        assert model.replay_buffer.max_priority == pytest.approx(9)  # type: ignore[union-attr]


def test_more_environments_get_an_empty_buffer() -> None:
    with AsyncDQN("MlpPolicy", StampedEnv, n_samplers=2, **PRIORITIZED, **tiny(learner="eager")) as model:
        model.learn(60)
        model.replay_buffer.reset()  # type: ignore[union-attr]
        model.set_env(SamplerVecEnv([StampedEnv] * 3, backend="inline"))
        buffer = model.replay_buffer
        assert isinstance(buffer, PrioritizedReplayBuffer) and buffer.n_envs == 3 and buffer.priorities.sum() == 0
        model.learn(60)
        assert_all_can_be_sampled(buffer)
