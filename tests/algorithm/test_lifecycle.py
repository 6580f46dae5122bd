"""Other environments, closing, new weights, several models."""

import copy
import gc
import threading
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conftest import child_processes
from lifecycle_helpers import MODES, SETTINGS, UnknownWrapper, inline_envs, inline_model, same, weights_of
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerError, SamplerVecEnv


class CountingBuffer(RolloutBuffer):
    """A buffer class of a user's own, with an argument of its own."""

    def __init__(self, *args: Any, label: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label


@pytest.mark.parametrize("n_envs", [1, 5])
@pytest.mark.parametrize("mode", MODES)
def test_there_may_be_more_environments_than_before_or_fewer(mode: str, n_envs: int) -> None:
    model = inline_model(mode=mode, n_samplers=3).learn(96)
    model.set_env(inline_envs(n_envs, lambda: StampedEnv(identity=9)))
    assert (model.n_envs, model.rollout_buffer.n_envs) == (n_envs, n_envs)
    model.learn(2 * 32 * n_envs, reset_num_timesteps=False)
    assert model.num_timesteps == 96 + 2 * 32 * n_envs
    assert model.rollout_buffer.observations.shape == (32 * n_envs, 3)
    assert (model.rollout_buffer.observations[:, 0] == 9).all()


def test_the_rollout_buffer_is_rebuilt_as_it_was_built() -> None:
    model = inline_model(
        rollout_buffer_class=CountingBuffer, rollout_buffer_kwargs={"label": "mine"}, gamma=0.7, gae_lambda=0.6
    )
    model.set_env(inline_envs(3))
    buffer = model.rollout_buffer
    assert isinstance(buffer, CountingBuffer) and buffer.label == "mine"
    assert (buffer.n_envs, buffer.buffer_size, buffer.gamma, buffer.gae_lambda) == (3, 32, 0.7, 0.6)
    model.learn(96)


def test_dictionaries_may_come_from_another_number_of_environments() -> None:
    model = inline_model(DictEnv, "MultiInputPolicy").learn(64)
    model.set_env(inline_envs(3, DictEnv))
    model.learn(96, reset_num_timesteps=False)
    assert model.num_timesteps == 64 + 96


def test_training_with_another_number_of_environments_is_what_sb3_does_after_loading(tmp_path: Path) -> None:
    model = AsyncPPO(
        "MlpPolicy", RandomWalk, n_samplers=1, mode="sync", actor="torch", backend="inline", **SETTINGS
    ).learn(64)
    model.save(tmp_path / "model")
    oracle = PPO.load(tmp_path / "model", env=make_vec_env(RandomWalk, 4), device="cpu")
    model.set_env(SamplerVecEnv([RandomWalk] * 4, envs_per_sampler=4, backend="inline"))
    for algorithm in (oracle, model):
        algorithm.set_random_seed(5)
        algorithm.learn(4 * 64, reset_num_timesteps=False)
    assert model.num_timesteps == oracle.num_timesteps == 64 + 256
    assert same(weights_of(oracle), weights_of(model))


def test_environments_in_lockstep_may_be_more_too() -> None:
    """Without a reset, the last observations would be of the wrong number of environments."""
    model = inline_model().learn(64)
    with pytest.warns(UserWarning, match="lockstep"):
        model.set_env(UnknownWrapper(make_vec_env(StampedEnv, 3)), force_reset=False)
    model.learn(96, reset_num_timesteps=False)
    assert model.num_timesteps == 64 + 96


def test_an_environment_with_other_spaces_is_refused_and_nothing_has_changed() -> None:
    model = inline_model(n_samplers=2).learn(64)
    env, buffer = model.env, model.rollout_buffer
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(inline_envs(3, RandomWalk))
    assert model.env is env and model.rollout_buffer is buffer and model.n_envs == 2
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 128


class SetEnv(BaseCallback):
    """Sets other environments in the middle of training."""

    def __init__(self, env: SamplerVecEnv) -> None:
        super().__init__()
        self.env = env

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            self.model.set_env(self.env)
        return True


@pytest.mark.parametrize("mode", MODES)
def test_during_training_only_as_many_can_be_set(mode: str) -> None:
    model = inline_model(mode=mode)
    with pytest.raises(RuntimeError, match=r"cannot change during learn\(\): there are 2, and 3 were given"):
        model.learn(256, callback=SetEnv(inline_envs(3)))
    model.learn(256, callback=SetEnv(inline_envs(2, lambda: StampedEnv(identity=9))))
    assert model.num_timesteps == 256
    assert set(model.rollout_buffer.observations.reshape(-1, 3)[:, 0]) == {9}
    # It has ended, also after the error.
    model.set_env(inline_envs(3))
    model.learn(96)


def test_samplers_that_were_replaced_end_without_another_learn() -> None:
    before = child_processes()
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=1, **SETTINGS).learn(32)
    model.set_env(inline_envs(1))
    gc.collect()
    assert child_processes() == before


@pytest.mark.parametrize("given", [False, True], ids=["built by the model", "given by the user"])
def test_a_with_block_ends_the_samplers(given: bool) -> None:
    before = child_processes()
    env: Any = SamplerVecEnv([StampedEnv] * 2) if given else StampedEnv
    with AsyncPPO("MlpPolicy", env, n_samplers=2, **SETTINGS) as model:
        model.learn(64)
        assert len(child_processes() - before) == 1
    assert child_processes() == before
    assert model.predict(model.observation_space.sample())[0] in (0, 1)


def test_a_with_block_ends_the_samplers_after_an_exception() -> None:
    before = child_processes()
    with pytest.raises(ZeroDivisionError), AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS) as model:
        model.learn(64)
        _ = 1 / 0
    assert child_processes() == before


def test_a_with_block_of_a_model_without_environments_does_nothing(tmp_path: Path) -> None:
    inline_model().save(tmp_path / "model")
    with AsyncPPO.load(tmp_path / "model") as model:
        assert model.get_env() is None


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("mode", MODES)
def test_learning_with_closed_samplers_is_an_error_and_new_ones_can_be_set(mode: str, backend: str) -> None:
    with inline_model(mode=mode, backend=backend) as model:
        model.learn(64)
    model.env.close()
    for reset_num_timesteps in (True, False):
        with pytest.raises(SamplerError, match="samplers are closed"):
            model.learn(64, reset_num_timesteps=reset_num_timesteps)
    with pytest.raises(SamplerError, match="samplers are closed"):
        model.env.reset()
    model.set_env(inline_envs(3))
    model.learn(96)
    assert model.num_timesteps == 96


def test_models_that_are_forgotten_leave_nothing_behind() -> None:
    before = child_processes()
    models = []
    for mode in MODES:
        model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=1, mode=mode, **SETTINGS).learn(64)
        models.append(weakref.ref(model))
        del model
    gc.collect()
    assert [model() for model in models] == [None] * 3
    assert child_processes() == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("actor", ["numpy", "torch"])
def test_weights_that_are_set_between_learn_calls_reach_the_samplers(mode: str, actor: str) -> None:
    model = inline_model(mode=mode, actor=actor, learning_rate=1e-9).learn(192)
    for action in (0, 1, 0):
        parameters = copy.deepcopy(model.get_parameters())
        parameters["policy"]["action_net.weight"].zero_()
        parameters["policy"]["action_net.bias"].copy_(th.tensor([-50.0, 50.0] if action else [50.0, -50.0]))
        model.set_parameters(parameters)
        assert th.equal(model.get_parameters()["policy"]["action_net.bias"], parameters["policy"]["action_net.bias"])
        model.learn(64, reset_num_timesteps=False)
        assert (model.rollout_buffer.actions == action).all()


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_after_seeding_training_takes_the_same_course(mode: str) -> None:
    def course(seed: int) -> dict[str, th.Tensor]:
        model.set_parameters(copy.deepcopy(start))
        model.set_random_seed(seed)
        return weights_of(model.learn(192))

    model = inline_model(RandomWalk, mode=mode)
    start = copy.deepcopy(model.get_parameters())
    first = course(7)
    assert same(course(7), first)
    assert not same(course(8), first)
    # No seed changes nothing, as in SB3.
    model.set_parameters(copy.deepcopy(start))
    model.set_random_seed(7)
    model.set_random_seed(None)
    assert same(weights_of(model.learn(192)), first)


def test_a_seed_that_was_set_is_not_saved_as_in_sb3(tmp_path: Path) -> None:
    model = inline_model(seed=None, actor="numpy")
    model.set_random_seed(7)
    model.save(tmp_path / "model")
    actions = []
    for _ in range(2):
        loaded = AsyncPPO.load(tmp_path / "model", env=inline_envs(2)).learn(64)
        actions.append(loaded.rollout_buffer.actions)
    assert not np.array_equal(*actions)


class Progress(BaseCallback):
    """Notes what the schedules are told, and what SB3 makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int, float, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        model = self.model
        self.rows.append(
            (
                model.num_timesteps,
                model._total_timesteps,
                model._current_progress_remaining,
                model.policy.optimizer.param_groups[0]["lr"],
            )
        )


@pytest.mark.parametrize("mode", MODES)
def test_timesteps_and_schedules_continue_as_in_sb3(mode: str) -> None:
    settings = {**SETTINGS, "learning_rate": lambda progress: 1e-3 * progress}
    courses = []
    for model in (
        PPO("MlpPolicy", make_vec_env(StampedEnv, 2), **settings),
        AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, mode=mode, backend="inline", **settings),
    ):
        callback = Progress()
        model.learn(256, callback=callback)
        model.learn(100, callback=callback, reset_num_timesteps=False)
        model.learn(128, callback=callback)
        courses.append((callback.rows, model.num_timesteps, model._n_updates))
    assert courses[0] == courses[1]
    assert courses[0][1] == 128 and len(courses[0][0]) == 8


def train_at_once(models: list[AsyncPPO], total: int) -> None:
    errors: list[BaseException] = []

    def train(model: AsyncPPO) -> None:
        try:
            model.learn(total)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_models_train_in_turns() -> None:
    models = [inline_model(lambda i=i: StampedEnv(i), mode=mode) for i, mode in enumerate(MODES)]
    for round_ in range(3):
        for identity, model in enumerate(models):
            model.learn(128, reset_num_timesteps=round_ == 0)
            assert (model.rollout_buffer.observations[..., 0] == identity).all()
    assert [model.num_timesteps for model in models] == [384] * 3


def test_two_models_train_in_two_threads() -> None:
    n_threads = th.get_num_threads()
    models = [AsyncPPO("MlpPolicy", partial(StampedEnv, i), n_samplers=2, **SETTINGS) for i in range(2)]
    train_at_once(models, 256)
    for identity, model in enumerate(models):
        assert model.num_timesteps == 256
        assert set(model.rollout_buffer.observations.reshape(-1, 3)[:, 0]) == {identity}
        model.get_env().close()
    assert th.get_num_threads() == n_threads


def test_a_model_made_in_a_thread_outlives_it() -> None:
    made: list[AsyncPPO] = []
    thread = threading.Thread(
        target=lambda: made.append(AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS).learn(64))
    )
    thread.start()
    thread.join()
    # The kernel can be asked to end a process with the thread, rather than with the process, that has started it.
    time.sleep(0.2)
    assert made[0].learn(64).num_timesteps == 64
    made[0].get_env().close()
