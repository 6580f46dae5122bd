"""Samplers finish their step and close their environments, however long that takes; a long wait is announced."""

import contextlib
import functools
import gc
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_envs import FailingWhenOthersAreStuck, QuickEnv, SavingEnv, StuckEnv
from fault_models import make_model
from process_helpers import Programs, is_alive, wait_until, wait_until_gone
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import SamplerError, SamplerVecEnv, SamplerWarning
from sb3_walle.backends import closing, process
from sb3_walle.samplers.requests import GetAttr, Request, Step

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "n_samplers": 2}
ROLLOUT = 2 * 32
# Longer than the two seconds that other programs give their workers.
SAVE_SECONDS = 2.5


@contextlib.contextmanager
def warned() -> Iterator[list[str]]:
    """The texts of warnings about samplers."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(warning.message) for warning in caught if warning.category is SamplerWarning]


def n_saved(folder: Path) -> int:
    return len(list(folder.iterdir()))


# All ways in which samplers end


@pytest.mark.parametrize("way", ["close", "with", "forgotten"])
def test_environments_get_to_save_when_a_model_ends(way: str, tmp_path: Path) -> None:
    model = make_model("pipelined", functools.partial(SavingEnv, str(tmp_path), SAVE_SECONDS), **SETTINGS)
    with warned() as told:
        with model if way == "with" else contextlib.nullcontext():
            model.learn(ROLLOUT)
        if way == "close":
            model.env.close()
        elif way == "forgotten":
            del model
            # SB3's models refer to themselves.
            gc.collect()
    assert n_saved(tmp_path) == 2
    assert told == []


def leave(way: str, kind: str, folder: str) -> None:
    model = make_model(kind, functools.partial(SavingEnv, folder, SAVE_SECONDS), **SETTINGS)
    model.learn(ROLLOUT)
    if way == "error":
        raise RuntimeError("enough")


@pytest.mark.parametrize(("way", "kind"), [("error", "pipelined"), ("end", "DQN pipelined")])
def test_environments_get_to_save_when_the_program_ends(
    way: str, kind: str, programs: Programs, tmp_path: Path
) -> None:
    program = programs.start(leave, way, kind, tmp_path)
    assert program.wait() == (1 if way == "error" else 0)
    assert n_saved(tmp_path) == 2
    assert "SamplerWarning" not in program.errors
    wait_until_gone(program.pid)


def ask(env: SamplerVecEnv, request: Request) -> bool:
    """Send something to the first sampler without waiting for the answer. Returns whether there was room for it."""
    return env.client._samplers.send(0, 1_000, request)


def test_step_is_finished_before_the_environment_is_closed(tmp_path: Path) -> None:
    env = SamplerVecEnv([functools.partial(SavingEnv, str(tmp_path), 0.0, SAVE_SECONDS)])
    env.reset()
    ask(env, Step(np.zeros(1, int)))
    with warned() as told:
        env.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1"]
    assert told == []


def test_samplers_with_full_mailboxes_close_their_environments(tmp_path: Path) -> None:
    env = SamplerVecEnv([functools.partial(SavingEnv, str(tmp_path), 0.0, 0.5)])
    env.reset()
    while ask(env, GetAttr("steps", [0])):
        continue
    env.close()
    assert n_saved(tmp_path) == 1


# What does not end


def test_user_is_told_of_a_long_wait_and_close_timeout_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "NOTICE_AFTER", 0.5)
    stuck = functools.partial(StuckEnv, "close", str(tmp_path))
    with warned() as told:
        env = SamplerVecEnv([QuickEnv, stuck, stuck], close_timeout=2.0)
        pids = env.env_method("pid")
        env.close()
    assert told == [
        "Waiting for sampler 1, sampler 2 to finish a step and to close the environments. Ctrl-C ends the wait and "
        "kills them; close_timeout does so after that many seconds.",
        "Killed after 2 s without having closed the environments: sampler 1, sampler 2.",
    ]
    assert not any(map(is_alive, pids))


def test_no_time_at_all_is_a_choice(tmp_path: Path) -> None:
    with warned() as told:
        SamplerVecEnv([functools.partial(SavingEnv, str(tmp_path), 60.0)], close_timeout=0).close()
    assert told == ["Killed after 0 s without having closed the environments: sampler 0."]


def test_step_that_hangs_is_ended_by_step_timeout_while_closing(tmp_path: Path) -> None:
    with warned() as told:
        env = SamplerVecEnv([functools.partial(StuckEnv, "step", str(tmp_path)), QuickEnv], step_timeout=1.0)
        env.reset()
        ask(env, Step(np.zeros(1, int)))
        wait_until(lambda: n_saved(tmp_path) == 1, "the environment is in its step")
        env.close()
    assert told == ["Sampler 0 hung: a step or a reset of its environment took longer than step_timeout=1 s"]


def test_samplers_that_build_are_not_waited_for_when_another_one_has_failed(tmp_path: Path) -> None:
    stuck = functools.partial(StuckEnv, "construction", str(tmp_path))
    failing = functools.partial(FailingWhenOthersAreStuck, str(tmp_path))
    with warned() as told, pytest.raises(SamplerError, match="Sampler 1 failed while building"):
        SamplerVecEnv([stuck, failing])
    assert told == ["Killed after 2 s without having closed the environments: sampler 0."]


def be_terminated(kind: str, folder: str) -> None:
    process.TERMINATION_TIMEOUT = 1.0
    model = make_model(kind, functools.partial(SavingEnv, folder, 600.0), **SETTINGS)

    class Terminate(BaseCallback):
        def _on_step(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return True

    with model:
        model.learn(1_000_000, callback=Terminate())


def test_after_sigterm_samplers_have_a_few_seconds(programs: Programs, tmp_path: Path) -> None:
    """Schedulers kill what has not ended soon after it was told to."""
    program = programs.start(be_terminated, "DQN pipelined", tmp_path)
    assert program.wait() == 128 + signal.SIGTERM
    assert "Killed after 1 s without having closed the environments: sampler 0, sampler 1." in program.errors
    assert n_saved(tmp_path) == 0
    wait_until_gone(program.pid)
