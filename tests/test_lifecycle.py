"""Other environments, copies, closing, new weights, several models, other processes."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from conftest import child_processes
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncA2C, AsyncPPO, SamplerError, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}
MODES = ("sync", "pipelined", "free")


def inline_model(env: Any = StampedEnv, policy: str = "MlpPolicy", **kwargs: Any) -> AsyncPPO:
    return AsyncPPO(policy, env, **{"n_samplers": 2, "backend": "inline", **SETTINGS, **kwargs})


def inline_envs(n_envs: int, env: Any = StampedEnv) -> SamplerVecEnv:
    return SamplerVecEnv([env] * n_envs, backend="inline")


def weights_of(model: Any) -> dict[str, th.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return first.keys() == second.keys() and all(th.equal(tensor, second[name]) for name, tensor in first.items())


# --- other environments ---


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
        model.set_env(VecNormalizeOfMine(make_vec_env(StampedEnv, 3)), force_reset=False)
    model.learn(96, reset_num_timesteps=False)
    assert model.num_timesteps == 64 + 96


class VecNormalizeOfMine(VecNormalize):
    """Cannot be run by samplers, who do not know it."""


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


# --- copies ---

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
    """Copies the model in the middle of a rollout, as whoever keeps the best one does."""

    def _on_step(self) -> bool:
        if self.n_calls == 50:
            self.pickled = pickle.dumps(self.model)
            self.twin = copy.deepcopy(self.model)
        return True


@pytest.mark.parametrize("mode", MODES)
def test_a_model_can_be_copied_while_its_samplers_work(mode: str) -> None:
    callback = CopyInTheMiddle()
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=2, mode=mode, use_sde=True, **SETTINGS)
    model.learn(256, callback=callback)
    assert model.num_timesteps == 256
    for twin in (callback.twin, pickle.loads(callback.pickled)):
        assert twin.num_timesteps == 100
        twin.set_env(inline_envs(2, RandomWalk))
        twin.learn(64)
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


# --- closing ---


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


# --- between two calls of learn() ---


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
def test_timesteps_and_schedules_go_on_as_in_sb3(mode: str) -> None:
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


# --- several models ---


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


@pytest.mark.parametrize("mode", MODES)
def test_two_models_train_in_two_threads(mode: str) -> None:
    n_threads = th.get_num_threads()
    models = [AsyncPPO("MlpPolicy", lambda i=i: StampedEnv(i), n_samplers=2, mode=mode, **SETTINGS) for i in range(2)]
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


# --- other processes ---

SCRIPT = """
import multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor

import torch as th

from sb3_walle import AsyncPPO


def train(seed):
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=2, n_steps=32, batch_size=32, seed=seed, device="cpu")
    return model.learn(128).num_timesteps


def put(queue, seed):
    queue.put(train(seed))


def in_child(context):
    queue = context.Queue()
    children = [context.Process(target=put, args=(queue, seed)) for seed in range(2)]
    for child in children:
        child.start()
    results = [queue.get() for _ in children]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    return results


def in_daemonic_workers(context):
    with context.Pool(2) as pool:
        return pool.map(train, range(2))


def in_executor(context):
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        return list(executor.map(train, range(2)))


def in_threads(context):
    results = []
    threads = [threading.Thread(target=lambda: results.append(train(0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


if __name__ == "__main__":
    # torch's own threads do not survive a fork, whoever uses them afterwards waits for them for ever.
    th.set_num_threads(1)
    where, method = sys.argv[1:]
    results = globals()[where](multiprocessing.get_context(method))
    print("results", results, flush=True)
"""


def run_script(program: str, folder: Path, *arguments: str) -> str:
    """
    Run a program in another process and return what it prints. Every process that it starts, samplers too, has a hold
    on its output: this waits until the last of them has ended.
    """
    script = folder / "script.py"
    script.write_text(textwrap.dedent(program))
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=300)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("where", "method"),
    [
        ("in_child", "fork"),
        ("in_child", "spawn"),
        ("in_daemonic_workers", "fork"),
        ("in_executor", "spawn"),
        ("in_threads", "fork"),
    ],
)
def test_training_in_a_worker(where: str, method: str, tmp_path: Path) -> None:
    assert run_script(SCRIPT, tmp_path, where, method) == "results [128, 128]\n"


FORK_IN_TRAINING = """
import multiprocessing

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import AsyncPPO, SamplerError

th.set_num_threads(1)
model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=2, n_steps=64, batch_size=64, device="cpu")

def train():
    USE
    model.set_env("CartPole-v1")
    print("child", model.learn(256).num_timesteps, flush=True)

class Fork(BaseCallback):
    def _on_step(self):
        if self.n_calls == 100:
            self.child = multiprocessing.get_context("fork").Process(target=train)
            self.child.start()
            self.child.join()
        return True

callback = Fork()
model.learn(512, callback=callback)
print("parent", model.num_timesteps, callback.child.exitcode, flush=True)
"""


def use_in_child(*lines: str) -> str:
    """What a forked child of a process in training does with its copy of the model before it trains with its own."""
    return FORK_IN_TRAINING.replace("    USE\n", textwrap.indent("\n".join(lines) + "\n", "    "))


def test_a_forked_child_trains_while_its_parent_does(tmp_path: Path) -> None:
    assert run_script(use_in_child("pass"), tmp_path).splitlines() == ["child 256", "parent 512 0"]


@pytest.mark.xfail(reason="a forked copy starts a new run in the policy queue that it shares", run=False)
@pytest.mark.parametrize("call", ["learn(64)", "learn(64, reset_num_timesteps=False)", "env.reset()"])
def test_a_forked_child_cannot_disturb_its_parents_samplers(call: str, tmp_path: Path) -> None:
    program = use_in_child("try:", f"    model.{call}", "except SamplerError as error:", "    print(error, flush=True)")
    expected = ["The samplers belong to the process that this one was forked from", "child 256", "parent 512 0"]
    assert run_script(program, tmp_path).splitlines() == expected


@pytest.mark.xfail(reason="a forked copy starts a new run in the policy queue that it shares", run=False)
def test_a_forked_child_may_close_what_it_has_a_copy_of(tmp_path: Path) -> None:
    assert run_script(use_in_child("model.env.close()"), tmp_path).splitlines() == ["child 256", "parent 512 0"]


@pytest.mark.xfail(reason="a spawned child's main module is pickled by reference, which samplers cannot follow")
@pytest.mark.parametrize("env", ["Mine", "'Mine-v0'"])
def test_an_environment_of_the_script_trains_in_a_spawned_child(env: str, tmp_path: Path) -> None:
    program = """
    import multiprocessing

    import gymnasium as gym

    class Mine(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}
        def step(self, action):
            return self.observation_space.sample(), 1.0, self.np_random.random() < 0.1, False, {}

    gym.register("Mine-v0", entry_point=f"{__name__}:Mine", max_episode_steps=9)

    def train():
        from sb3_walle import AsyncPPO
        model = AsyncPPO("MlpPolicy", ENV, n_samplers=2, n_steps=32, batch_size=32, device="cpu")
        print("trained", model.learn(64).num_timesteps, flush=True)

    if __name__ == "__main__":
        child = multiprocessing.get_context("spawn").Process(target=train)
        child.start()
        child.join()
    """
    assert run_script(program.replace("ENV", env), tmp_path).endswith("trained 64\n")


def test_a_model_travels_to_a_worker_and_back(tmp_path: Path) -> None:
    program = """
    from concurrent.futures import ProcessPoolExecutor
    import multiprocessing

    from sb3_walle import AsyncPPO

    def train(model):
        model.set_env("CartPole-v1")
        return model.learn(128, reset_num_timesteps=False)

    if __name__ == "__main__":
        model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=2, n_steps=32, batch_size=32, device="cpu").learn(64)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            trained = executor.submit(train, model).result()
        trained.set_env(model.get_env())
        print(model.num_timesteps, trained.num_timesteps, trained.learn(64, reset_num_timesteps=False).num_timesteps)
    """
    assert run_script(program, tmp_path) == "64 192 256\n"
