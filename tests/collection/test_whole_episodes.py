"""Rollouts of whole episodes: which episodes they hold, what is learned from them, and what callbacks see of them."""

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from oracle import Recorder, assert_same, assert_same_weights, episodes
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncA2C, AsyncPPO, SamplerVecEnv, TimelineCallback
from sb3_walle.on_policy.advantages import accumulate

SETTINGS: dict[str, Any] = {
    "rollout": "episodes",
    "n_samplers": 3,
    "backend": "inline",
    "batch_size": 64,
    "n_epochs": 1,
    "learner": "eager",
    "policy_kwargs": {"net_arch": [8]},
    "device": "cpu",
    "seed": 0,
}
MODES = ["sync", "pipelined"]


class LuckyEnv(StampedEnv):
    """Episodes of one step or of a hundred, at equal odds."""

    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        self.episode_length = 100 if self.np_random.random() < 0.5 else 1
        return result


class Lengths(BaseCallback):
    """Keeps the lengths of the episodes of every rollout, and may end training after some number of rollouts."""

    def __init__(self, n_rollouts: int = 10**9) -> None:
        super().__init__()
        self.n_rollouts = n_rollouts
        self.lengths: list[np.ndarray] = []

    @property
    def sizes(self) -> np.ndarray:
        """Steps of each rollout."""
        return np.array([lengths.sum() for lengths in self.lengths])

    def _on_step(self) -> bool:
        return len(self.lengths) < self.n_rollouts

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        assert buffer.full and buffer.n_envs == 1 and buffer.rewards.shape == (buffer.buffer_size, 1)
        starts = np.flatnonzero(buffer.episode_starts[:, 0])
        assert starts[0] == 0
        self.lengths.append(np.diff(starts, append=buffer.buffer_size))


class Episodes(Lengths):
    """Checks and keeps what callbacks are shown, too."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: list[float] = []
        self.dones = 0

    def _on_rollout_start(self) -> None:
        self._n_before = self.num_timesteps
        self.rewards.append(0.0)

    def _on_step(self) -> bool:
        made, n_envs = self.locals["step_made"], self.training_env.num_envs
        assert made.shape == self.locals["rewards"].shape == self.locals["dones"].shape == (n_envs,)
        assert len(self.locals["infos"]) == len(self.locals["new_obs"]) == n_envs
        # A sampler that has given its episodes shows where it stays.
        assert not self.locals["dones"][~made].any() and not self.locals["rewards"][~made].any()
        assert self.num_timesteps - self._n_before == made.sum() > 0
        self._n_before = self.num_timesteps
        self.rewards[-1] += self.locals["rewards"].sum()
        self.dones += int(self.locals["dones"].sum())
        return super()._on_step()


def train(env: Any, target_steps: int, n_steps: int, callback: Any = None, **settings: Any) -> AsyncPPO:
    model = AsyncPPO("MlpPolicy", env, target_steps=target_steps, **{**SETTINGS, **settings})
    model.learn(n_steps, callback=callback)
    model.get_env().close()
    return model


def flat_weights(model: Any) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in model.policy.parameters()])


# Which episodes


def test_short_episodes_are_not_favoured() -> None:
    """As they are where those that end first make up the rollout."""
    seen = Lengths(n_rollouts=200)
    settings: dict[str, Any] = {"batch_size": 5_000, "learning_rate": 0.0, "n_samplers": 4, "mode": "sync"}
    train(LuckyEnv, 250, 10**9, seen, max_episode_steps=101, **settings)
    assert len(seen.lengths) == 200
    assert np.concatenate(seen.lengths).mean() == pytest.approx(50.5, rel=0.05)
    assert set(np.concatenate(seen.lengths)) == {1, 100}


class ChangingEnv(StampedEnv):
    """Each episode is so many times as long as the one before, within bounds."""

    def __init__(self, first: int, factor: float) -> None:
        super().__init__(episode_length=first)
        self.factor, self.exact_length = factor, first / factor

    def reset(self, **kwargs: Any) -> Any:
        self.exact_length = min(max(self.factor * self.exact_length, 5.0), 300.0)
        self.episode_length = round(self.exact_length)
        return super().reset(**kwargs)


@pytest.mark.parametrize(("first", "factor", "are_too_many"), [(10, 1.02, False), (100, 0.8, False), (10, 1.4, True)])
def test_lengths_of_the_last_episodes_decide_how_many_come_next(first: int, factor: float, are_too_many: bool) -> None:
    seen, n_samplers = Lengths(n_rollouts=8), 3
    env = partial(ChangingEnv, first, factor)
    train(env, 600, 10**9, seen, mode="pipelined", max_episode_steps=1_000, n_samplers=n_samplers, batch_size=9_999)
    numbers = [len(lengths) for lengths in seen.lengths]
    wanted = [1, *(max(1, round(600 / lengths.mean())) for lengths in seen.lengths)][: len(numbers)]
    # Some of them begin before the last ones have ended.
    ahead = [0, *(max(math.ceil(number / 2), min(number, n_samplers)) for number in wanted)][: len(numbers)]
    assert numbers == [max(pair) for pair in zip(wanted, ahead, strict=True)]
    assert (numbers != wanted) == are_too_many


@pytest.mark.parametrize(("mode", "target_steps"), [("sync", 1_000), ("pipelined", 2_000)])
def test_rollouts_have_about_as_many_steps_as_wanted_while_the_policy_learns(mode: str, target_steps: int) -> None:
    seen = Episodes()
    model = train("CartPole-v1", target_steps, 15 * target_steps, seen, mode=mode, n_epochs=3)
    sizes = seen.sizes
    assert np.mean(np.abs(sizes[3:] / target_steps - 1) < 0.25) >= 0.9, sizes
    # And it did learn.
    assert model.mean_episode_steps > 2 * seen.lengths[1].mean(), [lengths.mean() for lengths in seen.lengths]


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("mode", MODES)
def test_every_episode_is_whole_and_comes_once(mode: str, backend: str) -> None:
    env = SamplerVecEnv([partial(StampedEnv, i, 3 + 2 * i, max_delay=1e-4 * i) for i in range(3)], backend=backend)
    stamps: list[np.ndarray] = []

    class Stamps(Episodes):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            stamps.append(self.model.rollout_buffer.observations[:, 0].copy())

    seen = Stamps()
    settings = {**SETTINGS, "backend": backend}
    model = AsyncPPO("MlpPolicy", env, mode=mode, target_steps=40, **settings)
    model.learn(400, callback=seen)
    # Samplers may be in the middle of an episode now. The next rollout begins with new ones all the same.
    model.learn(80, callback=seen, reset_num_timesteps=False)
    env.close()
    assert model.num_timesteps == sum(map(len, stamps))
    samples = np.concatenate(stamps)
    assert len(np.unique(samples, axis=0)) == len(samples)
    for identity in range(3):
        own = samples[samples[:, 0] == identity]
        expected = np.arange(len(own)) % (3 + 2 * identity)
        np.testing.assert_array_equal(own[:, 2], expected)
    # All samplers give as many episodes as any other, or one less.
    given = np.bincount(samples[samples[:, 2] == 0][:, 0].astype(int))
    assert given.max() - given.min() <= 1


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_timing_does_not_change_the_result(mode: str, normalize: bool) -> None:
    weights, sizes = [], []
    for backend, max_delay in (("inline", 0.0), ("process", 0.001)):
        seen = Episodes()
        env = partial(RandomWalk, max_delay)
        model = train(env, 150, 700, seen, mode=mode, backend=backend, normalize=normalize)
        weights.append(flat_weights(model))
        sizes.append(seen.sizes)
    np.testing.assert_array_equal(*sizes)
    np.testing.assert_array_equal(*weights)
    assert len(sizes[0]) >= 4


def test_fewer_episodes_than_samplers_are_taken_in_turn() -> None:
    env = SamplerVecEnv([partial(StampedEnv, i, episode_length=20) for i in range(3)], backend="inline")
    who: list[float] = []

    class Who(Episodes):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            who.extend(np.unique(self.model.rollout_buffer.observations[..., 0]))

    train(env, 20, 120, Who(), mode="sync", n_samplers=None, max_episode_steps=21)
    assert who == [0, 1, 2, 0, 1, 2]


def test_episodes_without_an_end_are_truncated_and_told_of_once() -> None:
    seen = Episodes()
    with pytest.warns(UserWarning, match="An episode has not ended within 30 steps and was truncated") as caught:
        model = train(partial(StampedEnv, episode_length=10**9), 90, 400, seen, max_episode_steps=30)
    assert len(caught) == 1
    assert set(np.concatenate(seen.lengths)) == {30}
    assert {length for _, length in episodes(model)} == {30}
    # Without a limit of the user's own, nothing hangs either.
    with pytest.warns(UserWarning, match="within 90 steps"):
        train(partial(StampedEnv, episode_length=10**9), 90, 200, seen)


@pytest.mark.filterwarnings("error")
def test_nothing_is_told_of_an_episode_that_ends_by_itself_at_the_limit() -> None:
    model = train(partial(StampedEnv, episode_length=30), 90, 200, max_episode_steps=30)
    assert {length for _, length in episodes(model)} == {30}


@pytest.mark.parametrize("limit", [5, None])
def test_a_limit_that_cannot_be_set_is_refused(limit: int | None) -> None:
    """Without it, samplers would await the end of an episode for ever."""

    def vectorised(n_envs: int) -> gym.vector.VectorEnv:
        same_step = gym.vector.AutoresetMode.SAME_STEP
        return gym.vector.SyncVectorEnv([partial(StampedEnv, episode_length=10**9)] * n_envs, autoreset_mode=same_step)

    with pytest.raises(ValueError, match=f"truncate episodes after {limit or 60} steps .* in a vectorised environment"):
        AsyncPPO("MlpPolicy", vectorised, target_steps=60, max_episode_steps=limit, **SETTINGS)


def test_a_limit_does_not_outlast_its_training() -> None:
    env = SamplerVecEnv([partial(StampedEnv, episode_length=50)], backend="inline")
    with pytest.warns(UserWarning, match="within 5 steps"):
        AsyncPPO("MlpPolicy", env, target_steps=20, max_episode_steps=5, **{**SETTINGS, "n_samplers": 1}).learn(20)
    model = AsyncPPO("MlpPolicy", env, n_steps=64, device="cpu")
    model.learn(64)
    assert {length for _, length in episodes(model)} == {50}


# What is learned


@pytest.mark.parametrize("mode", MODES)
def test_episodes_of_equal_length_train_what_steps_train(mode: str) -> None:
    settings = {**SETTINGS, "n_samplers": 2, "actor": "torch", "mode": mode, "batch_size": 50}
    whole = train("Pendulum-v1", 400, 1_200, **settings)
    del settings["rollout"]
    steps = AsyncPPO("MlpPolicy", "Pendulum-v1", n_steps=200, **settings).learn(1_200)
    assert whole.num_timesteps == steps.num_timesteps == 1_200
    # With a lag, sums over another order of the same samples are rounded in another way.
    np.testing.assert_allclose(flat_weights(whole), flat_weights(steps), rtol=0, atol=0 if mode == "sync" else 1e-5)


def test_episodes_of_equal_length_train_what_sb3_trains() -> None:
    settings = {**SETTINGS, "n_samplers": 1, "actor": "torch", "mode": "sync", "batch_size": 100}
    own = {name: settings[name] for name in ("batch_size", "n_epochs", "policy_kwargs", "seed", "device")}
    found, expected = Recorder(), Recorder()
    oracle = PPO("MlpPolicy", make_vec_env("Pendulum-v1", 1), n_steps=400, **own).learn(800, callback=expected)
    model = train("Pendulum-v1", 400, 800, found, **settings)
    assert_same(expected.steps, found.steps, "steps")
    assert_same(expected.buffers, found.buffers, "rollout_buffer")
    assert_same(episodes(oracle), episodes(model), "ep_info_buffer")
    assert_same_weights(oracle, model)


class BufferKeeper(Episodes):
    """Keeps the arrays of every rollout buffer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[dict[str, np.ndarray]] = []

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        names = ("observations", "actions", "rewards", "values", "advantages", "returns")
        self.buffers.append({name: getattr(self.model.rollout_buffer, name).copy() for name in names})


@pytest.mark.parametrize("actor", ["numpy", "torch"])
@pytest.mark.parametrize("truncates", [False, True])
def test_advantages_are_those_of_each_episode_by_itself(truncates: bool, actor: str) -> None:
    """SB3's own buffer estimates those of one episode at a time, to the last bit."""
    seen = BufferKeeper()
    env = SamplerVecEnv([partial(StampedEnv, i, 4 + 3 * i, truncates=truncates) for i in range(3)], backend="inline")
    settings = {**SETTINGS, "mode": "sync", "learning_rate": 0.0, "actor": actor, "target_steps": 60}
    model = AsyncPPO("MlpPolicy", env, gamma=0.9, gae_lambda=0.8, **settings)
    model.learn(200, callback=seen)
    for arrays, lengths in zip(seen.buffers, seen.lengths, strict=True):
        # What is learned from is the reward, and the value of what would have come next where time was up.
        rewards = arrays["actions"][..., 0].astype(np.float32)
        for stop, length in zip(np.cumsum(lengths), lengths, strict=True):
            if truncates:
                observation, _ = model.policy.obs_to_tensor(arrays["observations"][stop - 1, 0] + [0, 0, 1])
                rewards[stop - 1] += 0.9 * model.policy.predict_values(observation).item()
            rows = slice(stop - length, stop)
            buffer = RolloutBuffer(int(length), model.observation_space, model.action_space, "cpu", 0.8, 0.9)
            buffer.rewards, buffer.values = arrays["rewards"][rows], arrays["values"][rows]
            buffer.compute_returns_and_advantage(th.zeros(1), np.ones(1))
            np.testing.assert_array_equal(arrays["advantages"][rows], buffer.advantages)
            np.testing.assert_array_equal(arrays["returns"][rows], buffer.returns)
        np.testing.assert_allclose(arrays["rewards"], rewards, atol=1e-5)


@settings_of_hypothesis(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_parts_of_a_column_are_accumulated_to_the_last_bit(n_rows: int, share_of_ends: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors, discounts = rng.normal(size=(2, n_rows, 1)).astype(np.float32)
    discounts[rng.random(n_rows) < share_of_ends] = 0
    found, following = np.full_like(errors, np.nan), np.zeros(1, np.float32)
    accumulate(errors, discounts, found)
    for row in reversed(range(n_rows)):
        following = errors[row] + discounts[row] * following
        assert found[row] == following


@pytest.mark.parametrize("env", [DictEnv, RandomWalk])
def test_any_buffer_is_filled(env: Callable[[], gym.Env]) -> None:
    class Halved(RolloutBuffer):
        def add(self, obs: Any, action: Any, reward: np.ndarray, *rest: Any) -> None:
            super().add(obs, action, reward / 2, *rest)

    is_dict = env is DictEnv
    kind = {} if is_dict else {"rollout_buffer_class": Halved}
    settings = {**SETTINGS, **kind}
    model = AsyncPPO("MultiInputPolicy" if is_dict else "MlpPolicy", env, target_steps=60, **settings)
    seen = Episodes()
    model.learn(200, callback=seen)
    assert seen.sizes.sum() == model.num_timesteps
    if not is_dict:
        bootstraps = model.rollout_buffer.rewards.sum() * 2 - seen.rewards[-1]
        assert abs(bootstraps) < 0.2 * abs(seen.rewards[-1])


def test_other_algorithms_collect_whole_episodes_too() -> None:
    seen = Episodes()
    settings: dict[str, Any] = {"n_samplers": 2, "backend": "inline", "rollout": "episodes", "target_steps": 50}
    model = AsyncA2C("MlpPolicy", RandomWalk, **settings)
    model.learn(500, callback=seen)
    assert seen.sizes.sum() == model.num_timesteps >= 500


# Callbacks, logs, and saved models


def test_callbacks_see_every_step_once() -> None:
    seen = Episodes()
    model = train(LuckyEnv, 300, 2_000, seen, max_episode_steps=200)
    assert seen.dones == sum(map(len, seen.lengths))
    n_envs = model.n_envs
    assert seen.n_calls <= model.num_timesteps <= seen.n_calls * n_envs
    assert model.num_timesteps == seen.sizes.sum()


def test_a_callback_ends_training_in_the_middle_of_a_rollout() -> None:
    class Stop(Episodes):
        def _on_step(self) -> bool:
            return super()._on_step() and self.num_timesteps < 100

    model = train(RandomWalk, 500, 2_000, Stop())
    assert 100 <= model.num_timesteps < 100 + model.n_envs


GUARDED_LENGTH = 500


def guarded() -> Monitor:
    return Monitor(StampedEnv(episode_length=GUARDED_LENGTH, max_delay=0.001), allow_early_resets=False)


class Abandon(Lengths):
    """Ends training when samplers are in the middle of the next rollout's episodes."""

    def _on_step(self) -> bool:
        time.sleep(0.05)
        return False


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_an_episode_that_must_not_be_broken_off_is_played_to_its_end() -> None:
    settings = {**SETTINGS, "mode": "pipelined", "target_steps": 2 * GUARDED_LENGTH, "n_samplers": None}
    with SamplerVecEnv([guarded] * 2) as env:
        model = AsyncPPO("MlpPolicy", env, max_episode_steps=GUARDED_LENGTH + 1, **settings)
        model.learn(10**6, callback=Abandon())
        n_made = [len(lengths) for lengths in env.get_attr("episode_lengths")]
        assert all(0 < steps < GUARDED_LENGTH for steps in env.get_attr("steps"))
        seen = Lengths()
        model.learn(2 * GUARDED_LENGTH, callback=seen, reset_num_timesteps=False)
        assert seen.sizes.tolist() == [2 * GUARDED_LENGTH]
        # The one that was begun is in no rollout.
        assert [len(lengths) for lengths in env.get_attr("episode_lengths")] == [n + 2 for n in n_made]
        # Where learn() begins anew, it resets as SB3's does.
        oracle = PPO("MlpPolicy", DummyVecEnv([guarded]), n_steps=64, device="cpu").learn(64)
        for either in (model, oracle.learn(64, reset_num_timesteps=False)):
            with pytest.raises(RuntimeError, match="Tried to reset an environment before done"):
                either.learn(64)


def test_stock_callbacks_and_the_timeline_work(tmp_path: Path) -> None:
    seen, timeline = Episodes(), TimelineCallback(tmp_path)
    stock = [StopTrainingOnMaxEpisodes(6), CheckpointCallback(10, str(tmp_path)), timeline, seen]
    model = train(RandomWalk, 100, 10**6, stock)
    assert seen.dones >= 6 * model.n_envs - model.n_envs and model.num_timesteps < 1_000
    assert len(list(tmp_path.glob("rl_model_*_steps.zip"))) == seen.n_calls // 10


def test_a_saved_model_continues_with_episodes_of_the_length_that_it_knows(tmp_path: Path) -> None:
    seen = Episodes()
    model = train("CartPole-v1", 400, 1_200, seen)
    model.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model", env="CartPole-v1", n_samplers=3, backend="inline")
    assert (loaded.rollout, loaded.target_steps) == ("episodes", 400)
    assert loaded.mean_episode_steps == model.mean_episode_steps < 100
    again = Episodes()
    loaded.learn(400, callback=again)
    # Else it would be one episode, as long as CartPole's limit.
    assert len(again.lengths[0]) == round(400 / model.mean_episode_steps)
    with pytest.raises(ValueError, match="n_steps=64 was given with rollout='episodes'"):
        AsyncPPO.load(tmp_path / "model", env="CartPole-v1", backend="inline", n_steps=64)
    # SB3 reads it, and the other way round.
    PPO.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 2)).learn(100)
    steps = AsyncPPO.load(tmp_path / "model", rollout="steps", env="CartPole-v1", backend="inline")
    steps.learn(100)
    assert steps.rollout_buffer.n_envs == steps.n_envs


def test_number_of_samplers_changes_between_learn_calls() -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, target_steps=60, **SETTINGS)
    model.learn(120)
    model.set_env(SamplerVecEnv([RandomWalk] * 2, backend="inline"))
    seen = Episodes()
    model.learn(120, callback=seen)
    assert model.n_envs == 2 and seen.sizes.sum() == model.num_timesteps


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout": "episode"}, r"rollout must be one of \('steps', 'episodes'\), got 'episode'"),
        ({"target_steps": None}, "rollout='episodes' needs target_steps"),
        ({"target_steps": 0}, "target_steps must be an integer of at least 1, got 0"),
        ({"max_episode_steps": 1.5}, r"max_episode_steps must be an integer of at least 1, got 1\.5"),
        ({"rollout": "steps"}, "target_steps=60 is for rollout='episodes'"),
        ({"n_steps": 20}, "n_steps=20 was given with rollout='episodes'"),
        ({"mode": "free"}, "mode='free' awaits none"),
        ({"envs_per_sampler": 2}, "rollout='episodes' was given with envs_per_sampler=2"),
        ({"env": SamplerVecEnv, "n_samplers": None}, "rollout='episodes' was given with envs_per_sampler=2"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    env = settings.pop("env", RandomWalk)
    if env is SamplerVecEnv:
        env = SamplerVecEnv([RandomWalk] * 4, envs_per_sampler=2, backend="inline")
    with pytest.raises(ValueError, match=message):
        AsyncPPO("MlpPolicy", env, **{**SETTINGS, "target_steps": 60, **settings})


def test_environments_in_lockstep_are_refused() -> None:
    class Unmovable(DummyVecEnv):
        """Of a class of its own."""

    settings = {**SETTINGS, "n_samplers": None, "target_steps": 60}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="rollout='episodes' needs samplers"):
            AsyncPPO("MlpPolicy", Unmovable([RandomWalk]), **settings)
        model = AsyncPPO("MlpPolicy", RandomWalk, **{**settings, "n_samplers": 1})
        model.set_env(Unmovable([RandomWalk]))
        with pytest.raises(ValueError, match="rollout='episodes' needs samplers"):
            model.learn(60)


def test_n_envs_means_as_many_samplers() -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, n_envs=4, target_steps=60, **{**SETTINGS, "n_samplers": None})
    assert model.get_env().n_samplers == 4


def test_a_single_advantage_stays_as_it_is() -> None:
    """A2C divides it by a deviation that is not a number."""
    settings: dict[str, Any] = {"rollout": "episodes", "target_steps": 1, "n_samplers": 1, "backend": "inline"}
    model = AsyncA2C("MlpPolicy", partial(StampedEnv, episode_length=1), normalize_advantage=True, **settings)
    assert np.isfinite(flat_weights(model.learn(3))).all()


def test_statistics_are_those_of_all_steps() -> None:
    model = train(RandomWalk, 200, 800, mode="sync", normalize=True)
    vec_normalize = model.get_vec_normalize_env()
    assert isinstance(vec_normalize, VecNormalize)
    # SB3 counts the first observations, too.
    assert vec_normalize.obs_rms.count == pytest.approx(model.num_timesteps + model.n_envs, abs=1)
