"""What each mode promises: the policy lag, the share of each sampler, and the same numbers at any timing."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.collection.queues import MAX_CHUNKS_QUEUED, chunk_length
from sb3_walle.collection.rollout import Rollout
from sb3_walle.on_policy.values import learner_episode_starts, learner_rewards

SETTINGS: dict[str, Any] = {"n_steps": 150, "batch_size": 50, "n_epochs": 1, "device": "cpu"}


class LagRecorder(BaseCallback):
    """Keeps the policy lag of every rollout, and the observations that were learned from."""

    def _on_training_start(self) -> None:
        self.lags: list[int] = []
        self.mean_lags: list[float] = []
        self.stale_steps = 0
        self.observations: list[np.ndarray] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        statistics = self.model._experience.collector.statistics
        self.lags.append(statistics.policy_lag_max)
        self.mean_lags.append(statistics.policy_lag_mean)
        self.stale_steps += statistics.n_stale_steps
        self.observations.append(self.model.rollout_buffer.observations.copy())


def stamped(identity: int, **kwargs: Any) -> Callable[[], StampedEnv]:
    return partial(StampedEnv, identity, **kwargs)


def train(env: Any, n_rollouts: int, **kwargs: Any) -> tuple[AsyncPPO, LagRecorder]:
    model, recorder = AsyncPPO("MlpPolicy", env, **{**SETTINGS, **kwargs}), LagRecorder()
    model.learn(n_rollouts * model.n_steps * model.n_envs, callback=recorder)
    model.get_env().close()
    return model, recorder


def flat_weights(model: AsyncPPO) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in model.policy.parameters()])


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_sync_never_lags(backend: str) -> None:
    _, recorder = train(RandomWalk, 4, mode="sync", n_samplers=2, backend=backend)
    assert recorder.lags == [0, 0, 0, 0]


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_pipelined_lags_by_exactly_one_version(backend: str) -> None:
    _, recorder = train(RandomWalk, 5, mode="pipelined", n_samplers=2, backend=backend)
    assert recorder.lags == [0, 1, 1, 1, 1]
    assert recorder.mean_lags == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_timing_does_not_change_the_result(mode: str) -> None:
    """Samplers in processes of their own and with random delays train the same weights as samplers in this process."""
    weights = []
    for backend, max_delay in [("inline", 0.0), ("process", 0.002)]:
        model, _ = train(
            partial(RandomWalk, max_delay),
            4,
            mode=mode,
            backend=backend,
            n_samplers=3,
            seed=5,
        )
        weights.append(flat_weights(model))
    np.testing.assert_array_equal(*weights)


def test_another_seed_gives_another_result() -> None:
    weights = [flat_weights(train(RandomWalk, 1, n_samplers=2, backend="inline", seed=seed)[0]) for seed in (1, 2)]
    assert not np.array_equal(*weights)


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_every_sampler_gives_its_share_in_columns_of_its_own(mode: str) -> None:
    env = SamplerVecEnv([stamped(identity) for identity in range(6)], envs_per_sampler=2, backend="inline")
    _, recorder = train(env, 3, mode=mode)
    for observations in recorder.observations:
        assert (observations[:, :, 0] == np.arange(6)).all()
    # No step is lost or told twice, not even between rollouts.
    for steps in np.concatenate(recorder.observations)[:, :, 1:].transpose(1, 0, 2):
        expected = np.arange(len(steps))
        np.testing.assert_array_equal(steps, np.stack([expected // 7, expected % 7], axis=1))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    max_policy_lag=st.integers(1, 3),
    delays=st.lists(st.sampled_from([0.0, 0.0002, 0.005]), min_size=2, max_size=3),
    n_steps=st.sampled_from([20, 150]),
)
def test_free_never_exceeds_its_policy_lag(max_policy_lag: int, delays: list[float], n_steps: int) -> None:
    env = SamplerVecEnv([stamped(identity, max_delay=delay) for identity, delay in enumerate(delays)])
    model, recorder = train(env, 6, mode="free", max_policy_lag=max_policy_lag, n_steps=n_steps, batch_size=n_steps)
    assert max(recorder.lags) <= max_policy_lag
    assert model.num_timesteps == 6 * n_steps * len(delays)


def test_a_slow_sampler_does_not_hold_up_the_others() -> None:
    """While the slow sampler makes a few steps, the others make up for what it leaves."""
    slow, fast = [stamped(0, max_delay=0.03)], [stamped(identity) for identity in (1, 2, 3)]
    env = SamplerVecEnv(slow + fast)
    _, recorder = train(env, 10, mode="free", max_policy_lag=4, n_steps=300, batch_size=300)
    steps_of = np.bincount(np.concatenate(recorder.observations)[:, :, 0].astype(int).ravel(), minlength=4)
    assert steps_of.sum() == 10 * 4 * 300
    assert 0 < steps_of[0] < 0.2 * steps_of[1:].min()


class RolloutKeeper(BaseCallback):
    """Keeps the rollouts of a model, as they are put together."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[Rollout] = []

    def _on_training_start(self) -> None:
        collector, rollouts = self.model._experience.collector, self.rollouts
        collect = collector._collect

        def keeping(*args: Any) -> Any:
            for rollout, rows in collect(*args):
                if rows.stop == rollout.n_steps:
                    rollouts.append(rollout)
                yield rollout, rows

        collector._collect = keeping  # type: ignore[method-assign]

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("truncates", [True, False])
def test_advantages_never_cross_from_one_stream_to_another(truncates: bool) -> None:
    """
    In mode "free" a column can hold steps of several environments. Its advantages are those of each run of consecutive
    steps by itself, with the value of the true next observation at its end.
    """
    delays = [0.002, 0.0, 0.0]
    env = SamplerVecEnv([stamped(i, max_delay=delay, truncates=truncates) for i, delay in enumerate(delays)])
    model = AsyncPPO(
        "MlpPolicy",
        env,
        mode="free",
        learning_rate=0.0,
        gamma=0.9,
        gae_lambda=0.8,
        # With it, those that are old would lose their mean.
        normalize_advantage=False,
        **SETTINGS,
    )
    keeper = RolloutKeeper()
    model.learn(3 * 150 * 3, callback=keeper)
    env.close()
    assert any(rollout.stream_ends[:-1].any() for rollout in keeper.rollouts), (
        "no column was shared: nothing was tested"
    )
    for rollout in keeper.rollouts:
        check_stream_ends(rollout)
    check_advantages(model, keeper.rollouts[-1])


def check_stream_ends(rollout: Rollout) -> None:
    observations = rollout.observations
    after = np.stack([rollout.next_observations(step) for step in range(rollout.n_steps)])
    continues = (observations[1:] == after[:-1]).all(axis=-1)
    # Where a new episode of the same environment begins, the next observation is its first one: that is a continuation.
    np.testing.assert_array_equal(continues, ~rollout.stream_ends[:-1])
    assert rollout.stream_ends[-1].all()


def check_advantages(model: AsyncPPO, rollout: Rollout) -> None:
    def value(observation: np.ndarray) -> float:
        tensor, _ = model.policy.obs_to_tensor(observation)
        return model.policy.predict_values(tensor).item()

    n_steps, n_envs = rollout.rewards.shape
    # The buffer was flattened for training, environment by environment.
    found = model.rollout_buffer.advantages.reshape(n_envs, n_steps).T
    for env in range(n_envs):
        advantage = 0.0
        for step in reversed(range(n_steps)):
            next_value = 0.0 if rollout.dones[step, env] else value(rollout.next_observations(step)[env])
            terminal = [
                info["terminal_observation"] for i, info in rollout.infos[step] if i == env and "episode" in info
            ]
            if terminal and dict(rollout.infos[step])[env]["TimeLimit.truncated"]:
                next_value = value(terminal[0])
            delta = rollout.rewards[step, env] + 0.9 * next_value - value(rollout.observations[step, env])
            ends = rollout.dones[step, env] or rollout.stream_ends[step, env]
            advantage = delta if ends else delta + 0.9 * 0.8 * advantage
            np.testing.assert_allclose(found[step, env], advantage, rtol=1e-3, atol=1e-4)


@settings(deadline=None)
@given(n_steps=st.integers(1, 10**6), n_rollouts=st.integers(1, 20), min_chunks=st.integers(1, 8))
def test_a_rollout_of_any_length_has_a_bounded_number_of_chunks(n_steps: int, n_rollouts: int, min_chunks: int) -> None:
    length = chunk_length(n_steps, n_rollouts, min_chunks)
    n_chunks = -(-n_steps // length)
    assert 1 <= length <= n_steps
    assert n_chunks * n_rollouts <= max(MAX_CHUNKS_QUEUED, n_rollouts)


def test_rollouts_of_many_steps_are_collected() -> None:
    model, _ = train(
        partial(StampedEnv, episode_length=1000), 1, n_steps=30_000, batch_size=30_000, n_epochs=1, n_samplers=1
    )
    assert model.num_timesteps == 30_000


def test_learner_rewards_leave_the_environments_rewards_alone() -> None:
    env = SamplerVecEnv([stamped(0, truncates=True)], backend="inline")
    model, keeper = AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS), RolloutKeeper()
    model.learn(150, callback=keeper)
    (rollout,) = keeper.rollouts
    before = rollout.rewards.copy()
    rewards = learner_rewards(model.policy, rollout, range(150), gamma=0.9)
    np.testing.assert_array_equal(rollout.rewards, before)
    np.testing.assert_array_equal((rewards != before)[:, 0], rollout.dones[:, 0])
    np.testing.assert_array_equal(learner_episode_starts(rollout, range(150)), rollout.episode_starts)


def test_pipelined_asks_for_no_rollout_that_is_not_learned_from() -> None:
    """Environments are exactly as many steps ahead as were learned from when learn() returns."""
    env = SamplerVecEnv([stamped(identity) for identity in range(2)], backend="inline")
    model = AsyncPPO("MlpPolicy", env, mode="pipelined", **SETTINGS)
    model.learn(3 * 300)
    model.learn(2 * 300, reset_num_timesteps=False)
    assert env.get_attr("episode") == [(5 * 150) // 7] * 2
