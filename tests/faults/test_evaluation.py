"""What goes wrong beside training, in the sampler that evaluates: nothing is lost, hangs or is left behind."""

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_envs import BrokenAxleEnv, HangingEnv, QuickEnv
from process_helpers import Programs, Terminal, is_alive, kill, wait_until, wait_until_gone
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import AsyncEvalCallback, AsyncPPO, SamplerError, SamplerVecEnv, SamplerWarning

SLOW = functools.partial(QuickEnv, 0.01)
#: an evaluation that is not going to end
ENDLESS: dict[str, Any] = {"n_eval_episodes": 100_000, "eval_freq": 20, "verbose": 0}


def make_model(backend: str = "inline", **kwargs: Any) -> AsyncPPO:
    """Its rollouts are of 32 steps."""
    settings = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "device": "cpu", "n_samplers": 1, **kwargs}
    return AsyncPPO("MlpPolicy", QuickEnv, backend=backend, **settings)


class At(BaseCallback):
    """Does something once, at a call."""

    def __init__(self, call: int, action: Any) -> None:
        super().__init__()
        self.call, self.action = call, action

    def _on_step(self) -> bool:
        if self.n_calls == self.call:
            self.action()
        return True


# Deaths and failures


def evaluated(folder: Path, at: Any = None) -> AsyncEvalCallback:
    """A training with one evaluation, in which something may happen to the sampler with that process."""
    evaluation = AsyncEvalCallback(SLOW, n_eval_episodes=5, eval_freq=20, log_path=str(folder), verbose=0)
    (pid,) = evaluation.eval_env.env_method("pid")
    callbacks: list[BaseCallback] = [evaluation]
    if at is not None:
        callbacks.append(At(25, lambda: at(pid)))
    make_model(seed=0).learn(32, callback=callbacks)
    evaluation.eval_env.close()
    assert not is_alive(pid)
    return evaluation


def test_an_evaluation_whose_sampler_is_killed_is_made_again(tmp_path: Path) -> None:
    """With the same seed, so that nobody sees a difference."""

    def kill_while_evaluating(pid: int) -> None:
        time.sleep(0.1)
        kill(pid)

    expected = evaluated(tmp_path / "whole")
    with pytest.warns(SamplerWarning, match="Sampler 0 was killed .* while evaluating the policy"):
        found = evaluated(tmp_path / "killed", kill_while_evaluating)
    assert found.evaluations_results == expected.evaluations_results
    assert len(found.evaluations_results) == 1


def test_an_environment_that_always_fails_is_the_users_error(tmp_path: Path) -> None:
    evaluation = AsyncEvalCallback(functools.partial(BrokenAxleEnv, str(tmp_path), 99), eval_freq=20, verbose=0)
    with (
        pytest.raises(SamplerError, match=r"(?s)evaluating the policy.*in step.*the axle is broken") as caught,
        pytest.warns(SamplerWarning),
    ):
        make_model().learn(64, callback=evaluation)
    assert isinstance(caught.value.__cause__, ArithmeticError)
    evaluation.eval_env.close()


def test_an_environment_that_fails_once_is_built_again(tmp_path: Path) -> None:
    evaluation = AsyncEvalCallback(functools.partial(BrokenAxleEnv, str(tmp_path), 1), eval_freq=20, verbose=0)
    with pytest.warns(SamplerWarning, match="the axle is broken"):
        make_model().learn(32, callback=evaluation)
    assert np.isfinite(evaluation.last_mean_reward)
    evaluation.eval_env.close()


def test_samplers_of_the_users_own_fail_as_they_were_told(tmp_path: Path) -> None:
    env_fn = functools.partial(BrokenAxleEnv, str(tmp_path), 1)
    with SamplerVecEnv([env_fn], on_failure="raise") as eval_env:
        evaluation = AsyncEvalCallback(eval_env, eval_freq=20, verbose=0)
        with pytest.raises(SamplerError, match="the axle is broken"):
            make_model().learn(32, callback=evaluation)


def test_an_environment_that_hangs_is_an_error() -> None:
    with SamplerVecEnv([HangingEnv], step_timeout=0.3, on_failure="raise") as eval_env:
        evaluation = AsyncEvalCallback(eval_env, eval_freq=20, verbose=0)
        with pytest.raises(SamplerError, match="hung: a step or a reset"):
            make_model().learn(32, callback=evaluation)


# Ends of training


def test_an_exception_leaves_the_callback_usable(tmp_path: Path) -> None:
    """What was being evaluated is given up, and the next training has evaluations of its own."""

    def fail() -> None:
        raise LookupError("a callback fails")

    evaluation = AsyncEvalCallback(SLOW, n_eval_episodes=500, eval_freq=20, log_path=str(tmp_path), verbose=0)
    model = make_model()
    with pytest.raises(LookupError):
        model.learn(64, callback=[evaluation, At(25, fail)])
    evaluation.n_eval_episodes, evaluation.n_calls = 1, 0
    started = time.monotonic()
    model.learn(32, callback=evaluation)
    # 500 episodes take a minute.
    assert time.monotonic() - started < 20
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (1, 1)
    evaluation.eval_env.close()


def test_closing_gives_an_evaluation_up() -> None:
    evaluation = AsyncEvalCallback(SLOW, **ENDLESS)
    (pid,) = evaluation.eval_env.env_method("pid")
    with pytest.raises(SamplerError, match="closed"):
        make_model().learn(64, callback=[evaluation, At(25, evaluation.eval_env.close)])
    assert not is_alive(pid)


def test_a_callback_that_is_forgotten_takes_its_sampler_along() -> None:
    def fail() -> None:
        raise LookupError("a callback fails")

    evaluation = AsyncEvalCallback(SLOW, **ENDLESS)
    (pid,) = evaluation.eval_env.env_method("pid")
    model = make_model()
    with pytest.raises(LookupError):
        model.learn(64, callback=[evaluation, At(25, fail)])
    del evaluation

    def is_gone() -> bool:
        import gc

        gc.collect()
        return not is_alive(pid)

    wait_until(is_gone, "the sampler has ended")


def evaluate_for_ever(backend: str) -> None:
    evaluation = AsyncEvalCallback(SLOW, **ENDLESS)
    model = make_model(backend, n_samplers=2)
    try:
        model.learn(1_000_000, callback=[evaluation, At(25, lambda: print("evaluating"))])
    except KeyboardInterrupt:
        print("interrupted")
    model.learn(64)
    print("learned", model.num_timesteps)


def test_control_c_leaves_nothing(programs: Programs) -> None:
    """Neither a process nor a line that is not the program's; the evaluation is not waited for."""
    with Terminal() as terminal:
        program = programs.start(evaluate_for_ever, "process", terminal=terminal.name)
        terminal.wait_for("evaluating\n")
        terminal.type("\x03")
        assert program.wait() == 0
        wait_until_gone(program.pid)
        assert terminal.shown.startswith("evaluating\n^Cinterrupted\nlearned 64\n"), terminal.shown
        assert terminal.shown == "evaluating\n^Cinterrupted\nlearned 64\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_learner_that_is_ended_leaves_nothing(number: signal.Signals, programs: Programs) -> None:
    program = programs.start(evaluate_for_ever, "process")
    program.wait_for("evaluating\n")
    os.kill(program.pid, number)
    program.wait()
    wait_until_gone(program.pid)
    assert program.errors == ""
