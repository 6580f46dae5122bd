"""Training with a function that builds vectorised environments."""

import os
import signal
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from late_vector_env import NextStep
from lifecycle_helpers import SETTINGS, same, weights_of
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv, SamplerWarning


def single() -> gym.Env:
    return gym.make("CartPole-v1")


def pole(n: int, mode: str = "sync", autoreset: AutoresetMode = AutoresetMode.SAME_STEP) -> gym.vector.VectorEnv:
    return gym.make_vec("CartPole-v1", n, vectorization_mode=mode, vector_kwargs={"autoreset_mode": autoreset})


def own_pole(n: int) -> gym.vector.VectorEnv:
    """Written as a vectorised environment, which resets in the next step."""
    return gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")


def trained(env: Any, **arguments: Any) -> AsyncPPO:
    model = AsyncPPO(
        "MlpPolicy", env, **{**SETTINGS, "n_samplers": 2, "envs_per_sampler": 3, "learner": "eager", **arguments}
    )
    model.learn(3 * SETTINGS["n_steps"] * 6)
    return model


SAME_AS_SINGLE: dict[str, Callable[[int], Any]] = {
    **{mode.name: lambda n, mode=mode: pole(n, autoreset=mode) for mode in AutoresetMode},
    "in processes": lambda n: pole(n, mode="async"),
    "VecEnv": lambda n: make_vec_env("CartPole-v1", n),
    "without an argument": lambda: pole(3),
}


@pytest.mark.parametrize("kind", SAME_AS_SINGLE)
def test_training_is_that_of_single_environments(kind: str) -> None:
    expected = trained(single, backend="inline")
    model = trained(SAME_AS_SINGLE[kind], backend="inline")
    assert same(weights_of(model), weights_of(expected))
    assert [(episode["r"], episode["l"]) for episode in model.ep_info_buffer] == [
        (episode["r"], episode["l"]) for episode in expected.ep_info_buffer
    ]
    assert len(model.ep_info_buffer) > 10
    outcomes = [evaluate_policy(some, some.get_env(), n_eval_episodes=6) for some in (model, expected)]
    assert outcomes[0] == outcomes[1]
    model.get_env().close()


def test_normalised_training_is_that_of_single_environments_on_every_backend() -> None:
    def normalized(env: Any, backend: str) -> AsyncPPO:
        return trained(VecNormalize(SamplerVecEnv([env] * 6, 3, backend)), n_samplers=None, envs_per_sampler=None)

    expected = normalized(single, "inline")
    for backend in ("inline", "process"):
        model = normalized(pole, backend)
        assert same(weights_of(model), weights_of(expected))
        model.get_env().close()


class Counter(BaseCallback):
    """Counts, and looks at all infos."""

    def __init__(self) -> None:
        super().__init__()
        self.n_ends = 0

    def _on_step(self) -> bool:
        assert self.num_timesteps == self.n_calls * self.training_env.num_envs
        dones, infos = self.locals["dones"], self.locals["infos"]
        for done, info in zip(dones, infos, strict=True):
            assert ("terminal_observation" in info) == ("episode" in info) == bool(done)
        self.n_ends += int(dones.sum())
        return True


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
@pytest.mark.parametrize("env", [pole, own_pole])
def test_steps_are_counted_exactly(env: Any, mode: str) -> None:
    model = AsyncPPO("MlpPolicy", env, n_samplers=2, envs_per_sampler=4, mode=mode, learner="eager", **SETTINGS)
    callback = Counter()
    model.learn(3 * 32 * 8, callback=callback)
    assert model.num_timesteps == 3 * 32 * 8 and callback.n_calls == 3 * 32
    assert callback.n_ends > 10
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=8)
    assert mean > 5
    model.get_env().close()


@pytest.mark.parametrize("train_freq", [1, 4])
@pytest.mark.parametrize("env", [pole, own_pole])
def test_steps_of_off_policy_algorithms_are_counted_exactly(env: Any, train_freq: int) -> None:
    model = AsyncDQN(
        "MlpPolicy", env, n_samplers=2, envs_per_sampler=2, backend="inline", learner="eager", train_freq=train_freq,
        learning_starts=40, batch_size=8, buffer_size=800, seed=0,
    )  # fmt: skip
    callback = Counter()
    model.learn(400, callback=callback)
    assert model.num_timesteps == 400 and callback.n_calls == 100 and callback.n_ends > 5
    buffer: Any = model.replay_buffer
    assert buffer.pos == 100
    starts = np.abs(buffer.next_observations[:100]).max(axis=-1)
    # What a step leads to is never the beginning of the next episode.
    dones = buffer.dones[:100].astype(bool) & ~buffer.timeouts[:100].astype(bool)
    assert dones.sum() == callback.n_ends and (starts[dones] > 0.2).all()


def test_transitions_in_a_replay_buffer_are_those_of_one_environment() -> None:
    lengths = [3, 5, 11]

    def late(n: int) -> NextStep:
        return NextStep([StampedEnv(number, lengths[number]) for number in range(n)])  # type: ignore[arg-type]

    model = AsyncDQN(
        "MlpPolicy", late, n_samplers=1, envs_per_sampler=3, backend="inline", learner="eager", train_freq=4,
        learning_starts=1000, buffer_size=600, seed=0,
    )  # fmt: skip
    model.learn(300)
    buffer: Any = model.replay_buffer
    for column, length in enumerate(lengths):
        before, after = buffer.observations[:100, column], buffer.next_observations[:100, column]
        np.testing.assert_array_equal(after - before, [[0, 0, 1]] * 100)
        assert (before[:, 0] == column).all()
        ends, cuts = buffer.dones[:100, column] == 1, buffer.timeouts[:100, column] == 1
        np.testing.assert_array_equal(ends & ~cuts, after[:, 2] == length)
        # Where the next row is no continuation, the buffer knows it.
        jumps = np.any(before[1:] != after[:-1], axis=1)
        assert ends[:-1][jumps].all()


def test_environments_are_divided_among_samplers() -> None:
    assert trained(pole, n_samplers=None, envs_per_sampler=None, n_envs=6, backend="inline").get_env().num_envs == 6
    model = AsyncPPO("MlpPolicy", own_pole, n_samplers="auto", n_envs=4, **SETTINGS)
    assert model.get_env().n_samplers in (1, 2, 4)
    model.get_env().close()


def test_other_environments_can_be_set() -> None:
    model = trained(single, backend="inline")
    model.set_env(own_pole)
    model.learn(32 * 6)
    assert (model.get_env().n_samplers, model.get_env().envs_per_sampler) == (2, 3)
    assert model.num_timesteps == 32 * 6


class Kill(BaseCallback):
    """Kills the second sampler in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            os.kill(self.training_env.env_method("process_id", indices=3)[0], signal.SIGKILL)
        return True


class Identifiable(RandomWalk):
    level = 0

    def process_id(self) -> int:
        return os.getpid()


def walks(n: int) -> gym.vector.VectorEnv:
    return gym.vector.SyncVectorEnv([Identifiable] * n, autoreset_mode=AutoresetMode.NEXT_STEP)


def test_sampler_that_is_killed_is_replaced_and_has_what_was_set() -> None:
    model = AsyncPPO("MlpPolicy", walks, n_samplers=2, envs_per_sampler=3, learner="eager", **SETTINGS)
    model.get_env().set_attr("level", 3)
    with pytest.warns(SamplerWarning, match="SIGKILL"):
        model.learn(4 * 32 * 6, callback=Kill())
    assert model.num_timesteps == 4 * 32 * 6
    assert model.get_env().get_attr("level") == [3] * 6
    assert len(set(model.get_env().env_method("process_id"))) == 2
    model.get_env().close()


class IdentifiablePoles(CartPoleVectorEnv):
    def process_id(self) -> int:
        return os.getpid()


def test_what_is_set_in_one_object_is_set_again_after_a_death() -> None:
    env = SamplerVecEnv([lambda n: IdentifiablePoles(n)] * 4, envs_per_sampler=2)
    env.set_attr("gravity", 4.0)
    env.seed(3)
    env.reset()
    with pytest.raises(AttributeError, match="in all of them or in none"):
        env.set_attr("gravity", 2.0, indices=[1])
    os.kill(env.env_method("process_id", indices=[2, 3])[0], signal.SIGKILL)
    with pytest.warns(SamplerWarning, match="SIGKILL"):
        env.reset()
    assert env.get_attr("gravity") == [4.0] * 4
    env.close()


class Picture(StampedEnv):
    """Channels last, for which SB3 puts a VecTransposeImage around."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def _stamp(self) -> np.ndarray:  # type: ignore[override]
        return np.full((36, 36, 1), 10 * self.steps, np.uint8)


class Parts(StampedEnv):
    observation_space = gym.spaces.Dict(  # type: ignore[assignment]
        {"place": gym.spaces.Box(-10, 100, (2,), np.float32), "room": gym.spaces.Discrete(20)}
    )

    def _stamp(self) -> Any:
        return {"place": np.array([self.identity, self.steps], np.float32), "room": self.steps}


@pytest.mark.parametrize(
    ("env", "policy"), [(Picture, "CnnPolicy"), (Parts, "MultiInputPolicy")], ids=["images", "Dict"]
)
def test_images_and_dictionaries_are_learned_from(env: Any, policy: str) -> None:
    def late(n: int) -> NextStep:
        return NextStep([env(number, 4 + number) for number in range(n)])

    def at_once(n: int) -> gym.vector.VectorEnv:
        return gym.vector.SyncVectorEnv([lambda k=k: env(k, 4 + k) for k in range(n)], copy=False)

    for vectorized in (late, at_once):
        model = AsyncPPO(
            policy, vectorized, n_samplers=1, envs_per_sampler=2, backend="inline", learner="eager", n_steps=8,
            n_epochs=1, batch_size=16, seed=0,
        )  # fmt: skip
        model.learn(32)
        rollout: Any = model.rollout_buffer
        observations = rollout.observations
        steps = observations["place"][..., 1] if isinstance(observations, dict) else observations[:, 0, 0, 0] / 10
        assert steps.size == 16 and steps.max() <= 5
        assert evaluate_policy(model, model.get_env(), n_eval_episodes=2, return_episode_rewards=True)[1] == [4, 5]


class Advantages(BaseCallback):
    """Compares advantages with those that follow from the definition, and counts where no continuation is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.n_gaps, self.rewards = 0, []

    def _on_step(self) -> bool:
        # As environments gave them. The buffer's have the value of what would have come next, where steps are missing.
        self.rewards.append(self.locals["rewards"].copy())
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        buffer = model.rollout_buffer
        before, rewards, n_steps = buffer.observations, np.array(self.rewards), buffer.buffer_size
        # What a step leads to, where its episode goes on.
        after = before + np.array([0, 0, 1], before.dtype)
        with th.no_grad():
            next_values = model.policy.predict_values(th.as_tensor(after.reshape(-1, 3))).reshape(rewards.shape).numpy()
        dones = after[..., 2] == LENGTHS
        expected = np.zeros_like(rewards)
        for env in range(len(LENGTHS)):
            later = 0.0
            for step in reversed(range(n_steps)):
                continues = step + 1 < n_steps and np.array_equal(before[step + 1, env], after[step, env])
                self.n_gaps += step + 1 < n_steps and not continues and not dones[step, env]
                if dones[step, env]:
                    later = rewards[step, env] - buffer.values[step, env]
                else:
                    delta = rewards[step, env] + 0.9 * next_values[step, env] - buffer.values[step, env]
                    later = delta + (0.9 * 0.8 * later if continues else 0.0)
                expected[step, env] = later
        np.testing.assert_allclose(buffer.advantages, expected, rtol=1e-4, atol=1e-4)


LENGTHS = np.array([3, 5, 40])


@pytest.mark.parametrize("actor", ["numpy", "torch"])
def test_advantages_do_not_look_across_steps_that_are_not_recorded(actor: str) -> None:
    def late(n: int) -> NextStep:
        return NextStep([StampedEnv(number, int(LENGTHS[number])) for number in range(n)])

    # While there are few statistics to normalise with, a rollout is made of several chunks.
    env = VecNormalize(SamplerVecEnv([late] * 3, 3, "inline"), norm_obs=False)
    model = AsyncPPO(
        "MlpPolicy", env, mode="sync", actor=actor, learner="eager", n_steps=24, n_epochs=1, batch_size=72, gamma=0.9,
        gae_lambda=0.8, seed=0, device="cpu",
    )  # fmt: skip
    advantages = Advantages()
    model.learn(72, callback=advantages)
    assert advantages.n_gaps > 3
