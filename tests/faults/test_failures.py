"""Failures reach the user, nothing hangs, and nothing is left behind."""

import functools
import gc
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from conftest import child_processes
from fault_envs import ExitingEnv, QuickEnv, TypoEnv
from process_helpers import open_descriptors, run, wait_until
from stable_baselines3.common.callbacks import BaseCallback
from toy_envs import FailingEnv, StampedEnv

from sb3_walle import AsyncPPO, SamplerError, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "device": "cpu"}


@pytest.mark.parametrize(
    ("mode", "backend"),
    [("sync", "inline"), ("pipelined", "process"), ("free", "inline"), ("free", "ray")],
)
def test_an_exception_in_step_ends_learn_with_its_traceback(mode: str, backend: str) -> None:
    env = SamplerVecEnv([StampedEnv, functools.partial(FailingEnv, 500)], backend=backend, on_failure="raise")
    model = AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS)
    with pytest.raises(SamplerError, match=r"Sampler 1 failed while collecting experience") as caught:
        model.learn(10_000)
    assert "the simulation diverged in step 500" in str(caught.value)
    assert isinstance(caught.value.__cause__, ArithmeticError)
    # A new one takes its place, and has its bad step before it: further than a free sampler runs ahead of a late one.
    model.learn(128)
    assert model.num_timesteps == 128


class Asker(BaseCallback):
    """Asks the environments for something at every step."""

    def _on_step(self) -> bool:
        assert not self.training_env.has_attr("missing")
        return True


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_failure_is_not_taken_for_the_answer_to_a_callbacks_question(backend: str) -> None:
    env = SamplerVecEnv([QuickEnv, TypoEnv], backend=backend, on_failure="raise")
    model = AsyncPPO("MlpPolicy", env, **SETTINGS)
    with pytest.raises(SamplerError, match="Sampler 1 failed while collecting") as caught:
        model.learn(10_000, callback=Asker())
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize("backend", ["process", "ray"])
def test_what_only_the_learner_can_import_is_an_error_with_a_traceback(backend: str) -> None:
    module = types.ModuleType("only_here")
    exec("import gymnasium\ndef build():\n    return gymnasium.make('CartPole-v1')", vars(module))
    module.build.__module__ = "only_here"
    sys.modules["only_here"] = module
    try:
        with pytest.raises(SamplerError, match=r"(?s)while reading a request.*No module named 'only_here'"):
            SamplerVecEnv([module.build], backend=backend)
    finally:
        del sys.modules["only_here"]


class Kill(BaseCallback):
    """Kills a sampler in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 100:
            os.kill(self.training_env.env_method("pid", indices=1)[0], signal.SIGKILL)
        return True


@pytest.mark.parametrize("backend", ["process", "ray"])
def test_a_killed_sampler_ends_learn_with_the_signals_name(backend: str) -> None:
    model = AsyncPPO("MlpPolicy", QuickEnv, n_samplers=3, on_failure="raise", backend=backend, **SETTINGS)
    with pytest.raises(SamplerError, match=r"Sampler 1 was killed by signal 9 \(SIGKILL"):
        model.learn(100_000, callback=Kill())
    assert model.predict(model.observation_space.sample())[0] in (0, 1)


def test_a_sampler_that_exits_ends_learn_with_its_exit_code() -> None:
    model = AsyncPPO("MlpPolicy", ExitingEnv, n_samplers=1, on_failure="raise", **SETTINGS)
    with pytest.raises(SamplerError, match="Sampler 0 exited with code 3"):
        model.learn(100)


class Interrupt(BaseCallback):
    """Raises in the middle of training."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def _on_step(self) -> bool:
        if self.n_calls == 100:
            raise self.error("enough")
        return True


@pytest.mark.parametrize(
    ("mode", "error", "backend"),
    [
        ("sync", KeyboardInterrupt, "process"),
        ("pipelined", ZeroDivisionError, "process"),
        ("free", KeyboardInterrupt, "process"),
    ],
)
def test_after_an_exception_in_a_callback_the_model_saves_and_learns(
    mode: str, error: type[BaseException], backend: str, tmp_path: Path
) -> None:
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, mode=mode, backend=backend, **SETTINGS)
    with pytest.raises(error, match="enough"):
        model.learn(10_000, callback=Interrupt(error))
    model.save(tmp_path / "model")
    model.learn(256)
    assert model.num_timesteps == 256


DEFINITIONS = """
import gymnasium as gym
print("main module runs")
class Mine(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, self.np_random.random() < 0.1, False, {}

from sb3_walle import AsyncPPO
gym.register("Mine-v0", entry_point=f"{__name__}:Mine", max_episode_steps=9)
settings = {"n_samplers": 2, "n_steps": 64, "n_epochs": 1, "learner": "eager"}
"""
PROGRAM = f"""{DEFINITIONS}
limit = 5
envs = (Mine, lambda: gym.wrappers.TimeLimit(Mine(), limit), "Mine-v0")
models = [AsyncPPO("MlpPolicy", env, **settings).learn(256) for env in envs]
assert max(episode["l"] for episode in models[1].ep_info_buffer) == limit
print("trained", *(model.num_timesteps for model in models))
"""


def short_program(backend: str) -> str:
    """Trains a class of the program, which an id names."""
    training = f'AsyncPPO("MlpPolicy", "Mine-v0", backend="{backend}", **settings).learn(256)'
    return f'{DEFINITIONS}\nprint("trained", {training}.num_timesteps)\n'


def check_trained_once(process: subprocess.CompletedProcess, n_models: int = 3) -> None:
    assert process.returncode == 0, process.stderr
    assert process.stdout == f"main module runs\ntrained{n_models * ' 256'}\n"
    assert process.stderr == ""


def test_a_script_needs_no_main_guard_and_may_register_an_environment(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    check_trained_once(run("", str(script)))


@pytest.mark.ray
def test_a_script_may_register_an_environment_for_ray(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(short_program("ray"))
    ended = run("", str(script))
    # Ray says in its errors what it does.
    assert ended.returncode == 0 and ended.stdout == "main module runs\ntrained 256\n", ended.stderr


def test_python_c_works() -> None:
    check_trained_once(run("", "-c", PROGRAM))


def test_a_program_typed_into_the_interpreter_works() -> None:
    check_trained_once(run(short_program("process"), "-"), n_models=1)


def test_no_descriptor_and_no_shared_memory_is_left() -> None:
    def train() -> None:
        model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS)
        model.learn(256)
        model.get_env().close()

    train()
    gc.collect()
    before, segments = open_descriptors(), set(os.listdir("/dev/shm"))
    for _ in range(2):
        train()
    gc.collect()
    assert open_descriptors() == before
    # Those that others make meanwhile are gone after a moment.
    wait_until(lambda: set(os.listdir("/dev/shm")) <= segments, "no new file of shared memory is left")
    assert child_processes() == set()
