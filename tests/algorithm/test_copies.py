"""Pickled and copied models."""

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from lifecycle_helpers import SETTINGS, UnknownWrapper, inline_envs, inline_model, same, weights_of
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncA2C, AsyncPPO

COPIERS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
}

MODELS: dict[str, Callable[[], Any]] = {
    "untrained": lambda: inline_model(),
    "trained": lambda: inline_model().learn(64),
    "gSDE": lambda: inline_model(RandomWalk, use_sde=True, sde_sample_freq=4).learn(64),
    "dictionaries": lambda: inline_model(DictEnv, "MultiInputPolicy").learn(64),
    "normalized": lambda: inline_model(RandomWalk, normalize=True).learn(64),
    "A2C": lambda: AsyncA2C("MlpPolicy", RandomWalk, n_samplers=2, backend="inline", seed=0, device="cpu").learn(20),
}


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_leaves_the_environments_behind_predicts_and_trains_on(kind: str, copier: str) -> None:
    model = MODELS[kind]()
    env = model.env
    twin = COPIERS[copier](model)
    assert type(twin) is type(model) and twin.get_env() is None and twin.get_vec_normalize_env() is None
    assert model.get_env() is env
    assert same(weights_of(model), weights_of(twin)) and twin.num_timesteps == model.num_timesteps
    observation = model.observation_space.sample()
    for deterministic in (True, False):
        actions = []
        for algorithm in (model, twin):
            th.manual_seed(1)
            actions.append(algorithm.predict(observation, deterministic=deterministic)[0])
        np.testing.assert_array_equal(*actions)

    with pytest.raises(RuntimeError, match=r"no environments to learn in. Give it some with set_env\(\)"):
        twin.learn(32)
    total = 2 * model.n_steps * model.n_envs
    before, timesteps = weights_of(model), model.num_timesteps
    twin.set_env(inline_envs(2, type_of(model)))
    twin.learn(total, reset_num_timesteps=False)
    assert twin.num_timesteps == timesteps + total
    assert same(before, weights_of(model)) and not same(before, weights_of(twin))
    model.learn(total, reset_num_timesteps=False)
    assert model.num_timesteps == timesteps + total and not same(before, weights_of(model))


def type_of(model: Any) -> Any:
    """The environment that a model learns in."""
    if isinstance(model.observation_space, spaces.Dict):
        return DictEnv
    return RandomWalk if isinstance(model.action_space, spaces.Box) else StampedEnv


def test_a_copy_does_not_continue_in_the_middle_of_an_episode() -> None:
    twin = copy.deepcopy(inline_model().learn(64))
    with pytest.warns(UserWarning, match="lockstep"):
        twin.set_env(UnknownWrapper(make_vec_env(StampedEnv, 2)), force_reset=False)
    twin.learn(64, reset_num_timesteps=False)
    assert twin.num_timesteps == 128


def test_a_copy_has_the_optimizer_of_its_own_policy() -> None:
    model = inline_model().learn(64)
    twin = copy.deepcopy(model)
    parameters = {id(parameter) for parameter in twin.policy.parameters()}
    optimized = {id(parameter) for group in twin.policy.optimizer.param_groups for parameter in group["params"]}
    assert optimized == parameters
    assert not parameters & {id(parameter) for parameter in model.policy.parameters()}
    states = [algorithm.policy.optimizer.state_dict()["state"] for algorithm in (model, twin)]
    assert states[0].keys() == states[1].keys() != set()
    assert all(th.equal(state["exp_avg"], states[1][key]["exp_avg"]) for key, state in states[0].items())


def test_a_copy_trains_as_a_saved_and_loaded_model_does(tmp_path: Path) -> None:
    model = inline_model(RandomWalk, actor="torch", mode="sync").learn(64)
    model.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model", env=inline_envs(2, RandomWalk), device="cpu")
    twin = pickle.loads(pickle.dumps(model))
    twin.set_env(inline_envs(2, RandomWalk))
    for algorithm in (loaded, twin):
        algorithm.set_random_seed(3)
        algorithm.learn(128)
    assert same(weights_of(loaded), weights_of(twin))


class CopyInTheMiddle(BaseCallback):
    """Copies the model in the middle of a rollout, as a callback that keeps the best one does."""

    def _on_step(self) -> bool:
        if self.n_calls == 50:
            self.pickled = pickle.dumps(self.model)
            self.twin = copy.deepcopy(self.model)
        return True


@pytest.mark.parametrize(("mode", "use_sde"), [("sync", False), ("pipelined", True), ("free", False)])
def test_a_model_can_be_copied_while_its_samplers_work(mode: str, use_sde: bool) -> None:
    callback = CopyInTheMiddle()
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=2, mode=mode, use_sde=use_sde, **SETTINGS)
    model.learn(256, callback=callback)
    assert model.num_timesteps == 256
    for twin in (callback.twin, pickle.loads(callback.pickled)):
        assert twin.num_timesteps == 100
        # It is not in the middle of anything.
        twin.set_env(inline_envs(3, RandomWalk))
        twin.learn(96)
    model.get_env().close()


def test_a_copy_knows_nothing_of_the_callback_and_the_logger(tmp_path: Path) -> None:
    class Unpicklable(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def _on_step(self) -> bool:
            return True

    model = inline_model()
    logger = configure(str(tmp_path), ["csv"])
    model.set_logger(logger)
    callback = Unpicklable()
    model.learn(64, callback=callback)
    twin = pickle.loads(pickle.dumps(model))
    assert not hasattr(twin, "_logger") and model.logger is logger
    twin.set_env(inline_envs(2))
    # It gets a logger of its own, as a new model does.
    assert twin.learn(64).logger is not logger
    logger.close()
