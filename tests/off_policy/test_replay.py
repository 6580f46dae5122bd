"""What ends up in the replay buffer, in every mode."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from off_policy_pairs import LEARNING_STARTS, DelayedWalk, Reach, Walk, tiny
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle import AsyncSAC, SamplerVecEnv
from sb3_walle.collection.modes import MODES
from sb3_walle.collection.stream_plan import MOST_WAITING

N_SAMPLERS = 3


def transitions(model: Any) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, float, bool, bool]]:
    """Everything that was stored: step, column, observation, next observation, reward, done, timeout."""
    buffer = model.replay_buffer
    assert not buffer.full
    for step in range(buffer.pos):
        for env in range(buffer.n_envs):
            yield (
                step,
                env,
                buffer.observations[step, env],
                buffer.next_observations[step, env],
                float(buffer.rewards[step, env]),
                bool(buffer.dones[step, env]),
                bool(buffer.timeouts[step, env]),
            )


def assert_true_transitions(model: Any) -> None:
    """Each one is what :class:`Walk` does, with the true last observation where an episode is cut off."""
    n_ends = 0
    for _, _, observation, next_observation, reward, done, timeout in transitions(model):
        episode, steps = observation
        assert next_observation.tolist() == [episode, steps + 1]
        assert reward == 100.0 * episode + steps + 1
        assert timeout == done
        n_ends += next_observation[1] == 7
    assert n_ends > 0


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("mode", MODES)
def test_transitions_are_those_of_the_environments(mode: str, backend: str) -> None:
    with AsyncSAC(
        "MlpPolicy", Walk, n_samplers=N_SAMPLERS, mode=mode, backend=backend, train_freq=4, **tiny()
    ) as model:
        model.learn(150)
        assert_true_transitions(model)
        if mode != "free":
            assert_contiguous(model)


def assert_contiguous(model: Any) -> None:
    """Each column is one environment's life, in order."""
    for env in range(N_SAMPLERS):
        column = [(o.tolist(), n.tolist(), done) for _, e, o, n, _, done, _ in transitions(model) if e == env]
        for (_, reached, done), (observation, _, _) in pairwise(column):
            assert observation == ([reached[0] + 1, 0] if done else reached)


@pytest.mark.parametrize("mode", MODES)
def test_originals_are_stored_and_normalised_when_they_are_sampled(mode: str) -> None:
    arguments = {**tiny(), "normalize": {"clip_obs": 1.5}, "backend": "inline", "mode": mode}
    with AsyncSAC("MlpPolicy", Walk, n_samplers=N_SAMPLERS, **arguments) as model:
        model.learn(150)
        assert_true_transitions(model)
        vec_normalize = model.get_vec_normalize_env()
        assert isinstance(vec_normalize, VecNormalize)
        sample = model.replay_buffer.sample(64, env=vec_normalize)
        assert sample.observations.abs().max() <= 1.5
        assert model._last_obs is not None and np.abs(model._last_obs).max() <= 1.5


class Ratio(BaseCallback):
    """Notes with every rollout how many steps and gradient steps there were before it."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[int, int]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.updates.append((self.model.num_timesteps, self.model._n_updates))


@settings(max_examples=4, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    train_freq=st.integers(1, 5),
    gradient_steps=st.sampled_from([-1, 1, 3]),
    n_samplers=st.integers(1, 3),
)
def test_gradient_steps_follow_steps_in_the_ratio_that_was_asked_for(
    mode: str, train_freq: int, gradient_steps: int, n_samplers: int
) -> None:
    arguments = {**tiny(), "train_freq": train_freq, "gradient_steps": gradient_steps, "mode": mode}
    with AsyncSAC("MlpPolicy", DelayedWalk, n_samplers=n_samplers, **arguments) as model:
        ratio = Ratio()
        model.learn(45, callback=ratio)
        per_rollout = train_freq * n_samplers
        updates = gradient_steps if gradient_steps > 0 else per_rollout
        for n_steps, n_updates in ratio.updates:
            n_trainings = sum(n > LEARNING_STARTS for n in range(per_rollout, n_steps + 1, per_rollout))
            assert n_updates == n_trainings * updates
        env = model.get_env()
        assert env is not None
        made = env.env_method("n_steps_made")
        # No sampler has run ahead further than it may: two rollouts, and in mode "free" what waits for its turn.
        waiting = MOST_WAITING * n_samplers if mode == "free" else 0
        assert sum(made) <= model.num_timesteps + 2 * per_rollout + waiting
        assert model._replay_ratio.value == pytest.approx(updates / per_rollout)


def test_pipelined_training_is_reproducible_and_lags_by_one_rollout() -> None:
    weights = []
    for backend in ("inline", "process"):
        arguments = {**tiny(), "mode": "pipelined", "backend": backend, "train_freq": 3}
        with AsyncSAC("MlpPolicy", Walk, n_samplers=2, **arguments) as model:
            model.learn(120)
            weights.append([value.clone() for value in model.policy.state_dict().values()])
            assert model._experience.collector is not None
            statistics = model._experience.collector.statistics
            assert statistics.policy_lag_max == statistics.policy_lag_mean == 1
    assert all(th.equal(some, others) for some, others in zip(*weights, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_rewards_of_goals_in_hindsight_are_computed_by_the_learner(mode: str) -> None:
    arguments: dict[str, Any] = {**tiny(), "mode": mode, "backend": "inline", "replay_buffer_class": HerReplayBuffer}
    with AsyncSAC("MultiInputPolicy", Reach, n_samplers=2, normalize={"norm_reward": False}, **arguments) as model:
        model.learn(120)
        buffer = model.replay_buffer
        assert isinstance(buffer, HerReplayBuffer)
        sample = buffer.sample(200, env=None)
        achieved, desired = (sample.next_observations[key].numpy() for key in ("achieved_goal", "desired_goal"))
        expected = Reach().compute_reward(achieved, desired, {})
        assert np.array_equal(sample.rewards.numpy()[:, 0], expected)
        # Some goals were chosen in hindsight, and so reached.
        assert (expected == 0.0).mean() > 0.1


class DyingWalk(Walk):
    """Dies once, in the middle of an episode: an exception in its ``step()``."""

    deaths = 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.episode == 2 and self.steps == 3 and DyingWalk.deaths == 0:
            DyingWalk.deaths += 1
            raise RuntimeError("broken")
        return super().step(action)


@pytest.mark.filterwarnings("ignore:.*Sampler")
def test_the_episode_of_a_sampler_that_was_replaced_counts_as_truncated() -> None:
    DyingWalk.deaths = 0
    env = SamplerVecEnv([DyingWalk, Walk], backend="inline")
    with AsyncSAC("MlpPolicy", env, mode="sync", **tiny()) as model:
        model.learn(80)
    stored = [entry for entry in transitions(model) if entry[1] == 0]
    broken = next(index for index, entry in enumerate(stored) if entry[3].tolist() == [2, 3])
    _, _, _, _, _, done, timeout = stored[broken]
    assert done and timeout
    # What comes next is the first step of the new environment.
    assert stored[broken + 1][2].tolist() == [0, 0]
    assert all(entry[5] == (entry[3][1] == 7) for index, entry in enumerate(stored) if index != broken)
