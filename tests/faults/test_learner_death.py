"""
When the learner's process, the process that samplers are forked from, or a sampler is killed at any moment: all that
depended on it ends, the processes that environments have started included, and no file and no memory is left.
"""

import functools
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from fault_envs import ForkingEnv, ParentEnv, QuickEnv, StuckEnv
from fault_models import make_model
from process_helpers import (
    Program,
    Programs,
    Terminal,
    is_alive,
    kill,
    members_of_session,
    parent_of,
    wait_until,
    wait_until_gone,
)
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import SamplerVecEnv
from sb3_walle.samplers.errors import SamplerWarning

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}
N_SAMPLERS = 3
# The learner, the process that samplers are forked from, the samplers, and what each of their environments has started.
N_PROCESSES = 2 + 2 * N_SAMPLERS


# Learners to be killed


class Announce(BaseCallback):
    """Prints that a rollout has ended, and holds the learner up after that if it is told to."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        print("a rollout has ended")
        time.sleep(self.seconds)


def learn(kind: str, step_seconds: float, callback_seconds: float) -> None:
    no_core_dump()
    env = functools.partial(ParentEnv, step_seconds)
    model = make_model(kind, env, n_samplers=N_SAMPLERS, **SETTINGS)
    model.learn(1_000_000, callback=Announce(callback_seconds))


def get_stuck(kind: str, where: str, folder: str) -> None:
    no_core_dump()
    env = functools.partial(StuckEnv, where, folder)
    make_model(kind, env, n_samplers=N_SAMPLERS, **SETTINGS).learn(1_000_000)


def import_slowly(folder: str) -> None:
    Path(folder, "slow_to_import.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('imports').touch()\ntime.sleep(2)\n"
    )
    sys.path.append(folder)
    SamplerVecEnv([QuickEnv] * N_SAMPLERS, preload=["slow_to_import"])


def no_core_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# The learner


def check_all_ends(program: Program, shared_files: set[str], what: str) -> None:
    """Wait until everything that belonged to a learner that has just been killed is gone."""
    began = time.monotonic()
    wait_until_gone(program.pid)
    print(f"{what}: gone after {time.monotonic() - began:.2f} s")
    # Other tests may have files here for a moment.
    wait_until(lambda: set(os.listdir("/dev/shm")) <= shared_files, "no new file of shared memory is left")
    assert list(program.temporary.rglob("*sb3_walle*")) == []


@pytest.mark.parametrize(
    ("kind", "step_seconds", "callback_seconds"),
    [
        pytest.param("sync", 0.0, 600.0, id="sync, samplers wait"),
        pytest.param("pipelined", 0.0, 600.0, id="pipelined, samplers wait"),
        pytest.param("free", 0.05, 0.0, id="free, samplers collect"),
        pytest.param("DQN pipelined", 0.05, 0.0, id="DQN pipelined, samplers collect"),
    ],
)
def test_nothing_outlives_a_learner_that_is_killed(
    kind: str, step_seconds: float, callback_seconds: float, programs: Programs
) -> None:
    shared_files = set(os.listdir("/dev/shm"))
    program = programs.start(learn, kind, step_seconds, callback_seconds)
    program.wait_for("a rollout has ended")
    assert len(members_of_session(program.pid)) == N_PROCESSES
    os.kill(program.pid, signal.SIGKILL)
    check_all_ends(program, shared_files, f"{kind}, {step_seconds:g} s a step")
    assert program.wait() == -signal.SIGKILL


def start_and_get_stuck(kind: str, where: str, programs: Programs, folder: Path) -> Program:
    program = programs.start(get_stuck, kind, where, folder)
    wait_until(lambda: len(list(folder.iterdir())) == N_SAMPLERS, f"all samplers are in {where}")
    assert len(members_of_session(program.pid)) == N_PROCESSES
    return program


@pytest.mark.parametrize(
    ("kind", "where"),
    [*(("pipelined", where) for where in ("construction", "reset", "step")), ("DQN pipelined", "step")],
)
def test_nothing_outlives_a_killed_learner_whose_samplers_are_stuck(
    kind: str, where: str, programs: Programs, tmp_path: Path
) -> None:
    shared_files = set(os.listdir("/dev/shm"))
    program = start_and_get_stuck(kind, where, programs, tmp_path)
    os.kill(program.pid, signal.SIGKILL)
    check_all_ends(program, shared_files, f"stuck in {where}")


@pytest.mark.parametrize(("kind", "by"), [("pipelined", signal.SIGHUP), ("DQN pipelined", signal.SIGQUIT)])
def test_nothing_outlives_a_learner_whose_whole_group_gets_a_signal(
    kind: str, by: signal.Signals, programs: Programs, tmp_path: Path
) -> None:
    """As when a terminal is closed, or by a key. Samplers have groups of their own."""
    shared_files = set(os.listdir("/dev/shm"))
    program = start_and_get_stuck(kind, "step", programs, tmp_path)
    os.killpg(program.pid, by)
    check_all_ends(program, shared_files, by.name)
    assert program.wait() == -by


def test_samplers_outlive_neither_a_killed_learner_nor_what_they_are_forked_from(
    programs: Programs, tmp_path: Path
) -> None:
    """With both, no process is left that could end what environments have started."""
    program = start_and_get_stuck("DQN pipelined", "step", programs, tmp_path)
    samplers = {int(path.name) for path in tmp_path.iterdir()}
    started = {pid for pid in members_of_session(program.pid) if parent_of(pid) in samplers}
    os.killpg(program.pid, signal.SIGKILL)
    wait_until(lambda: set(members_of_session(program.pid)) <= started, "the samplers are gone")


def test_nothing_outlives_a_learner_that_is_killed_while_modules_are_imported(
    programs: Programs, tmp_path: Path
) -> None:
    program = programs.start(import_slowly, tmp_path)
    wait_until((tmp_path / "imports").exists, "the module is being imported")
    assert len(members_of_session(program.pid)) == 2
    os.kill(program.pid, signal.SIGKILL)
    check_all_ends(program, set(os.listdir("/dev/shm")), "importing for 2 s")


def test_closing_the_terminal_ends_everything(programs: Programs) -> None:
    shared_files = set(os.listdir("/dev/shm"))
    with Terminal() as terminal:
        program = programs.start(learn, "pipelined", 0.05, 0.0, terminal=terminal.name)
        terminal.wait_for("a rollout has ended\n")
    assert program.wait() == -signal.SIGHUP
    check_all_ends(program, shared_files, "closed terminal")


# The process that samplers are forked from


class KillServer(BaseCallback):
    """Kills the process that samplers are forked from, in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            samplers = self.training_env.env_method("pid")
            kill(self.training_env.env_method("server_pid")[0])
            wait_until(lambda: not any(map(is_alive, samplers)), "the samplers are dead, too")
        return True


@pytest.mark.parametrize("kind", ["free", "DQN pipelined"])
def test_training_continues_when_the_process_that_samplers_are_forked_from_is_killed(kind: str) -> None:
    with make_model(kind, QuickEnv, n_samplers=N_SAMPLERS, **SETTINGS) as model:
        assert isinstance(model.env, SamplerVecEnv)
        before = model.env.env_method("server_pid")[0]
        with pytest.warns(
            SamplerWarning, match=r"died with the process that samplers are forked from.*SIGKILL"
        ) as told:
            model.learn(8 * 96, callback=KillServer())
        assert model.num_timesteps == 8 * 96
        assert model.env.client.n_restarts == len(told) == N_SAMPLERS
        assert len({*model.env.env_method("server_pid"), before}) == 2
        assert not is_alive(before)


def test_that_happens_too_if_processes_that_were_forked_keep_the_channels_open(tmp_path: Path) -> None:
    """By the end of its channel, the learner usually sees that a sampler is dead."""
    env = functools.partial(ForkingEnv, str(tmp_path))
    try:
        with make_model("pipelined", env, n_samplers=2, **SETTINGS) as model, pytest.warns(SamplerWarning):
            model.learn(8 * 64, callback=KillServer())
            assert model.num_timesteps == 8 * 64
    finally:
        for path in tmp_path.iterdir():
            os.kill(int(path.name), signal.SIGKILL)


# A sampler


class KillSampler(BaseCallback):
    """Kills a sampler in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            kill(self.training_env.env_method("pid", indices=1)[0])
        return True


@pytest.mark.parametrize("kind", ["sync", "pipelined"])
def test_what_the_environments_of_a_killed_sampler_have_started_ends_with_it(kind: str) -> None:
    with make_model(kind, ParentEnv, n_samplers=N_SAMPLERS, **SETTINGS) as model:
        assert isinstance(model.env, SamplerVecEnv)
        before = model.env.get_attr("child_pid")
        with pytest.warns(SamplerWarning, match=r"Sampler 1 was killed by signal 9"):
            model.learn(8 * 96, callback=KillSampler())
        after = model.env.get_attr("child_pid")
        assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
        wait_until(lambda: not is_alive(before[1]), "the process of the killed sampler's environment is gone")
        assert all(map(is_alive, after))
        assert [parent_of(child) for child in after] == model.env.env_method("pid")
    wait_until(lambda: not any(map(is_alive, after)), "the processes of all environments are gone")


def test_what_environments_have_started_ends_at_every_replacement() -> None:
    with warnings.catch_warnings(), SamplerVecEnv([ParentEnv], max_restarts=100) as env:
        warnings.simplefilter("ignore", SamplerWarning)
        children = []
        for _ in range(5):
            children += env.get_attr("child_pid")
            kill(env.env_method("pid")[0])
            env.reset()
        children += env.get_attr("child_pid")
        wait_until(lambda: not any(map(is_alive, children[:-1])), "those of all samplers before are gone")
        assert len(set(children)) == 6 and is_alive(children[-1])
