"""Off-policy algorithms whose samplers are killed or fail: what is in the replay buffer then."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_envs import BadTask, raise_error
from killer import killing
from stable_baselines3.common.buffers import ReplayBuffer
from stamped_task import CHECKSUM, EPISODE_LENGTH, LIFE, STEP, StampedTask, checksum

from sb3_walle import AsyncDQN, PrioritizedReplayBuffer, SamplerError, SamplerVecEnv

N_ENVS = 3
SETTINGS: dict[str, Any] = {
    "policy_kwargs": {"net_arch": [4]},
    "learning_starts": 20,
    "batch_size": 8,
    "buffer_size": 20_000,
    "device": "cpu",
    "learner": "eager",
}


def check_stored(model: Any, n_steps: int, is_ordered: bool) -> int:
    """
    That every transition is whole, comes once, and leads where it says; and that the next one in its column either
    follows or comes after a mark. Returns the number of lives.
    """
    buffer = model.replay_buffer
    assert buffer.pos * buffer.n_envs == n_steps and not buffer.full
    stamps, reached = (array[: buffer.pos, :, 0] for array in (buffer.observations, buffer.next_observations))
    for words in (stamps, reached):
        assert np.array_equal(checksum(*np.moveaxis(words[..., :CHECKSUM], -1, 0)), words[..., CHECKSUM])
    assert np.array_equal(reached[..., LIFE], stamps[..., LIFE])
    assert np.array_equal(reached[..., STEP], stamps[..., STEP] + 1)
    assert np.array_equal(buffer.rewards[: buffer.pos], reached[..., STEP])
    assert len(np.unique(stamps.reshape(n_steps, -1), axis=0)) == n_steps
    dones, timeouts = buffer.dones[: buffer.pos].astype(bool), buffer.timeouts[: buffer.pos].astype(bool)
    assert np.array_equal(dones, timeouts)
    assert dones[reached[..., STEP] == EPISODE_LENGTH].all()
    for column in range(buffer.n_envs):
        for row in range(buffer.pos - 1):
            before, after, done = reached[row, column], stamps[row + 1, column], dones[row, column]
            assert np.array_equal(before, after) if not done else after[STEP] == 0 or not is_ordered
    return len(np.unique(stamps[..., LIFE]))


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(("mode", "train_freq"), [("sync", 1), ("pipelined", 16), ("free", 1)])
def test_samplers_killed_at_any_instant(mode: str, train_freq: int) -> None:
    env = SamplerVecEnv([StampedTask] * N_ENVS, max_restarts=10_000)
    timesteps = N_ENVS * (60 if train_freq == 1 else 640)
    with AsyncDQN("MlpPolicy", env, mode=mode, train_freq=train_freq, **SETTINGS) as model:
        with killing(model, longest_pause=0.02) as killed:
            model.learn(timesteps)
        assert model.num_timesteps == timesteps
        n_lives = check_stored(model, timesteps, is_ordered=mode != "free")
        assert N_ENVS < n_lives <= N_ENVS + env.client.n_restarts
    assert killed


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(("mode", "train_freq"), [("sync", 4), ("pipelined", 16), ("free", 4)])
def test_samplers_killed_where_a_buffer_cannot_store_truncation(mode: str, train_freq: int) -> None:
    """Each observation is also the next one of the step before: an episode that was broken off must not remain."""
    env = SamplerVecEnv([StampedTask] * N_ENVS, max_restarts=10_000)
    less_memory = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    with AsyncDQN("MlpPolicy", env, mode=mode, train_freq=train_freq, **SETTINGS, **less_memory) as model:
        # Until an episode has ended, there is nothing to put in the place of one that has not.
        model.learn(N_ENVS * 32)
        with killing(model, longest_pause=0.02) as killed:
            model.learn(N_ENVS * 160, reset_num_timesteps=False)
        check_chains(model.replay_buffer)
    assert killed


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(("mode", "train_freq"), [("pipelined", 4), ("free", 4)])
def test_priorities_where_samplers_are_killed(mode: str, train_freq: int) -> None:
    """Transitions are whole, come once, and each has a priority: kills change nothing."""
    env = SamplerVecEnv([StampedTask] * N_ENVS, max_restarts=10_000)
    arguments = {**SETTINGS, "replay_buffer_class": PrioritizedReplayBuffer}
    with AsyncDQN("MlpPolicy", env, mode=mode, train_freq=train_freq, **arguments) as model:
        with killing(model, longest_pause=0.02) as killed:
            model.learn(N_ENVS * 120)
        check_stored(model, N_ENVS * 120, is_ordered=mode != "free")
        buffer: Any = model.replay_buffer
        assert (buffer.priorities[: buffer.pos] > 0).all() and (buffer.priorities[buffer.pos :] == 0).all()
        assert model._n_updates == 120 / train_freq - SETTINGS["learning_starts"] // (N_ENVS * train_freq)
    assert killed


def check_chains(buffer: ReplayBuffer) -> None:
    """That episodes end where they ended, and every other step is followed by the one that it led to."""
    stamps, dones = buffer.observations[: buffer.pos, :, 0], buffer.dones[: buffer.pos].astype(bool)
    assert np.array_equal(dones, stamps[..., STEP] == EPISODE_LENGTH - 1)
    assert np.array_equal(buffer.rewards[: buffer.pos], stamps[..., STEP] + 1)
    follows = (stamps[1:, :, LIFE] == stamps[:-1, :, LIFE]) & (stamps[1:, :, STEP] == stamps[:-1, :, STEP] + 1)
    assert (follows | dones[:-1]).all()


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_an_environment_that_fails_is_reported_with_its_traceback(mode: str, tmp_path: Path) -> None:
    # In the middle of the third episode.
    factory = functools.partial(BadTask, "step", raise_error, tmp_path, at=18)
    with AsyncDQN("MlpPolicy", factory, n_samplers=2, mode=mode, on_failure="raise", **SETTINGS) as model:
        with pytest.raises(SamplerError, match=r"(?s)while collecting experience.*ArithmeticError: the simulation"):
            model.learn(10_000)
        # What was stored before is whole.
        check_stored(model, model.num_timesteps - model.num_timesteps % 2, is_ordered=False)
