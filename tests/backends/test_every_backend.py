"""Whatever a user does with samplers has the same result on every backend, to the last bit."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from lifecycle_helpers import weights_of
from space_env import SpaceEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize, VecTransposeImage
from task_envs import Painter, Scaled, Task
from toy_envs import DictEnv, RandomWalk

from sb3_walle import AsyncPPO, AsyncSAC, SamplerVecEnv

N_ENVS = 4
PPO: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 2}
SAC: dict[str, Any] = {"train_freq": 8, "learning_starts": 64, "batch_size": 32}
ALL: dict[str, Any] = {"n_samplers": N_ENVS, "seed": 5, "device": "cpu", "learner": "eager"}
ROLLOUT = N_ENVS * 32


def ppo(env: Any, policy: str = "MlpPolicy", **settings: Any) -> AsyncPPO:
    return AsyncPPO(policy, env, **{**PPO, **ALL, "policy_kwargs": {"net_arch": [8]}, **settings})


def episodes(model: Any) -> list[tuple[float, int]]:
    return [(episode["r"], episode["l"]) for episode in model.ep_info_buffer]


# What users do. Each returns what comes of it.


def ten_updates_of_ppo(backend: str, mode: str) -> Any:
    with ppo("CartPole-v1", mode=mode, backend=backend) as model:
        model.learn(10 * ROLLOUT)
        return model.num_timesteps, weights_of(model), episodes(model)


def ten_updates_of_sac(backend: str, mode: str) -> Any:
    with AsyncSAC("MlpPolicy", "Pendulum-v1", mode=mode, backend=backend, **SAC, **ALL) as model:
        model.learn(64 + 10 * N_ENVS * 8)
        return model.num_timesteps, weights_of(model)


def statistics_of_vec_normalize(backend: str, mode: str) -> Any:
    with ppo(RandomWalk, mode=mode, normalize=True, backend=backend) as model:
        model.learn(3 * ROLLOUT)
        env = model.get_vec_normalize_env()
        assert env is not None
        return weights_of(model), vars(env.obs_rms), vars(env.ret_rms), env.normalize_obs(np.ones(2))


def wrappers_around_images(backend: str) -> Any:
    screen = functools.partial(SpaceEnv, spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Discrete(3))
    env = VecTransposeImage(VecFrameStack(SamplerVecEnv([screen] * 2, backend=backend), 2))
    with ppo(env, "CnnPolicy", n_samplers=None, n_steps=16) as model:
        model.learn(64)
        return weights_of(model), episodes(model)


def wrappers_inside_samplers(backend: str) -> Any:
    env = SamplerVecEnv(
        [Task] * 4, envs_per_sampler=2, backend=backend, vec_wrapper=lambda venv: VecFrameStack(VecMonitor(venv), 3)
    )
    with ppo(VecNormalize(env), n_samplers=None) as model:
        model.learn(2 * ROLLOUT)
        return weights_of(model), episodes(model)


def observations_that_are_dictionaries(backend: str) -> Any:
    with ppo(DictEnv, "MultiInputPolicy", backend=backend) as model:
        model.learn(2 * ROLLOUT)
        return weights_of(model), model.rollout_buffer.observations


def late_poles(n: int) -> gym.vector.VectorEnv:
    return gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")


def vectorised_environments(backend: str) -> Any:
    with ppo(late_poles, n_samplers=2, envs_per_sampler=2, normalize=True, backend=backend) as model:
        model.learn(3 * ROLLOUT)
        found = evaluate_policy(model, model.get_env(), n_eval_episodes=6, return_episode_rewards=True)
        return weights_of(model), episodes(model), found


class Watching(BaseCallback):
    """Notes what callbacks are shown, and changes the environments on the way."""

    def _on_training_start(self) -> None:
        self.seen: list[Any] = []
        self.training_env.env_method("set_scale", 3, indices=[1, 2])

    def _on_step(self) -> bool:
        self.seen.append([info["position"] for info in self.locals["infos"]])
        self.seen.append(self.locals["rewards"].tolist())
        return True

    def _on_rollout_end(self) -> None:
        self.training_env.set_attr("scale", self.num_timesteps, indices=3)
        self.seen.append(self.training_env.get_attr("scale"))


def callbacks_of_sb3_and_of_the_users_own(backend: str) -> Any:
    with tempfile.TemporaryDirectory() as folder, ppo(Scaled, mode="sync", backend=backend) as model:
        watching = Watching()
        evaluation = EvalCallback(make_vec_env(Task, 1, seed=3), eval_freq=40, n_eval_episodes=2, log_path=folder)
        checkpoints = CheckpointCallback(save_freq=32, save_path=folder)
        model.learn(3 * ROLLOUT, callback=CallbackList([watching, evaluation, checkpoints]))
        evaluations = dict(np.load(Path(folder, "evaluations.npz")))
        return watching.seen, evaluations, sorted(path.name for path in Path(folder).iterdir()), weights_of(model)


def evaluating_on_the_models_own_environments(backend: str) -> Any:
    with ppo(Task, backend=backend) as model:
        model.learn(ROLLOUT)
        found = evaluate_policy(model, model.get_env(), n_eval_episodes=6, return_episode_rewards=True)
        model.learn(ROLLOUT, reset_num_timesteps=False)
        return found, model.num_timesteps, weights_of(model)


def saving_loading_and_other_environments(backend: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        with ppo(RandomWalk, backend=backend) as model:
            model.learn(ROLLOUT)
            model.save(path)
        with AsyncPPO.load(path, RandomWalk, n_samplers=2, backend=backend, seed=7, learner="eager") as model:
            model.learn(64, reset_num_timesteps=False)
            loaded = weights_of(model)
            # They are put into samplers of the same backend.
            model.set_env(make_vec_env(Task, 2))
            assert model.get_env().backend == backend
            model.learn(64)
            return loaded, weights_of(model), model.num_timesteps


def talking_to_environments(backend: str) -> Any:
    with SamplerVecEnv([Painter] * 4, envs_per_sampler=2, backend=backend) as env:
        env.seed(11)
        found: list[Any] = [env.reset(), env.reset_infos]
        found.append(env.env_method("set_scale", 2, indices=[1, 3]))
        env.set_attr("scale", 9, indices=0)
        found += [env.get_attr("scale"), env.has_attr("scale"), env.has_attr("no such thing")]
        found += [env.env_is_wrapped(wrapper) for wrapper in (Scaled, gym.wrappers.TimeLimit)]
        found += [env.render(), [step.tolist() for step in env.step(np.ones((4, 1), np.float32))[:3]]]
        return found


RESULTS: dict[str, Any] = {
    **{
        f"{find.__name__}, {mode}": functools.partial(find, mode=mode)
        for find in (ten_updates_of_ppo, ten_updates_of_sac, statistics_of_vec_normalize)
        for mode in ("sync", "pipelined")
    },
    **{
        find.__name__: find
        for find in (
            wrappers_around_images,
            wrappers_inside_samplers,
            observations_that_are_dictionaries,
            callbacks_of_sb3_and_of_the_users_own,
            evaluating_on_the_models_own_environments,
            saving_loading_and_other_environments,
            talking_to_environments,
            vectorised_environments,
        )
    },
}


# What tells something about a cluster: observations of every kind that travel, models that change samplers, calls of
# environments. What samplers wrap and what the learner wraps, processes show: it is the same code.
ON_RAY = (
    "ten_updates_of_ppo, sync",
    "ten_updates_of_sac, pipelined",
    "statistics_of_vec_normalize, pipelined",
    "observations_that_are_dictionaries",
    "callbacks_of_sb3_and_of_the_users_own",
    "evaluating_on_the_models_own_environments",
    "saving_loading_and_other_environments",
    "talking_to_environments",
    "vectorised_environments",
)


@functools.cache
def in_this_process(what: str) -> Any:
    return RESULTS[what]("inline")


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(
    ("what", "backend"), [*((what, "process") for what in RESULTS), *((what, "ray") for what in ON_RAY)]
)
def test_result(what: str, backend: str) -> None:
    assert_same(RESULTS[what](backend), in_this_process(what))


def assert_same(found: Any, expected: Any) -> None:
    """To the last bit, recursively."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, th.Tensor):
        assert th.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        assert found == expected
