"""
Ctrl-C, SIGTERM and exceptions in the middle of training: the program gets control at once, the model is usable, nothing
hangs, and nothing is left behind or printed that is not the program's own.
"""

import contextlib
import functools
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fault_envs import QuickEnv, StuckEnv
from fault_models import KINDS, load_model, make_model
from process_helpers import Programs, Terminal, members_of_session, wait_until, wait_until_gone
from stable_baselines3.common.callbacks import BaseCallback

import sb3_walle
from sb3_walle.backends import closing

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "n_samplers": 2}
# Samples of a rollout
ROLLOUT = 2 * 32


class Announce(BaseCallback):
    """Prints, once, that training is under way."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == ROLLOUT:
            print("learning")


# Ctrl-C in a terminal


def learn_until_interrupted(path: str, kind: str) -> None:
    model = make_model(kind, functools.partial(QuickEnv, 0.01), **SETTINGS)
    try:
        model.learn(1_000_000, callback=Announce())
    except KeyboardInterrupt:
        print("interrupted")
    model.save(path)
    model.learn(2 * ROLLOUT)
    print("learned", model.num_timesteps)


@pytest.mark.parametrize("kind", ["DQN pipelined", "free"])
def test_control_c_gives_back_control_and_the_model_learns_again(kind: str, programs: Programs, tmp_path: Path) -> None:
    with Terminal() as terminal:
        program = programs.start(learn_until_interrupted, tmp_path / "model", kind, terminal=terminal.name)
        terminal.wait_for("learning\n")
        terminal.type("\x03")
        assert program.wait() == 0
        wait_until_gone(program.pid)
        assert terminal.shown == f"learning\n^Cinterrupted\nlearned {2 * ROLLOUT}\n"
    load_model(kind, tmp_path / "model")


def close_for_long(kind: str, folder: str) -> None:
    """The environments take for ever to close, and only the user ends that."""
    closing.NOTICE_AFTER = 600.0
    model = make_model(kind, functools.partial(StuckEnv, "close", folder, 0.01), **SETTINGS)
    try:
        model.learn(1_000_000, callback=Announce())
    except KeyboardInterrupt:
        print("closing")
    try:
        model.env.close()  # type: ignore[union-attr]
    except KeyboardInterrupt:
        print("interrupted again")


def test_control_c_a_second_time_does_not_wait_for_environments_that_close(programs: Programs, tmp_path: Path) -> None:
    with Terminal() as terminal:
        program = programs.start(close_for_long, "pipelined", tmp_path, terminal=terminal.name)
        terminal.wait_for("learning\n")
        terminal.type("\x03")
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "both environments are being closed")
        assert len(members_of_session(program.pid)) == 6
        terminal.type("\x03")
        assert program.wait() == 0
        wait_until_gone(program.pid)
        assert terminal.shown == "learning\n^Cclosing\n^Cinterrupted again\n"


def be_interrupted_at_the_end(kind: str, folder: str) -> None:
    """As the one before, but the program leaves it to the interpreter to close the environments."""
    closing.NOTICE_AFTER = 600.0
    model = make_model(kind, functools.partial(StuckEnv, "close", folder), **SETTINGS)
    model.learn(ROLLOUT)


def test_control_c_while_the_interpreter_ends_leaves_nothing(programs: Programs, tmp_path: Path) -> None:
    with Terminal() as terminal:
        program = programs.start(be_interrupted_at_the_end, "DQN pipelined", tmp_path, terminal=terminal.name)
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "both environments are being closed")
        terminal.type("\x03")
        program.wait()
        wait_until_gone(program.pid)


# SIGTERM


def save_at_the_end(path: str, kind: str) -> None:
    model = make_model(kind, functools.partial(QuickEnv, 0.01), **SETTINGS)
    try:
        model.learn(1_000_000, callback=Announce())
    finally:
        print(repr(sys.exc_info()[1]))
        model.save(path)


@pytest.mark.parametrize(
    ("kind", "whole_group"),
    [
        pytest.param("sync", True, id="sync, to its whole group"),
        pytest.param("DQN pipelined", False, id="DQN pipelined, to the learner"),
    ],
)
def test_sigterm_lets_the_program_save_the_model(
    kind: str, whole_group: bool, programs: Programs, tmp_path: Path
) -> None:
    program = programs.start(save_at_the_end, tmp_path / "model", kind)
    program.wait_for("learning\n")
    (os.killpg if whole_group else os.kill)(program.pid, signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    wait_until_gone(program.pid)
    assert (program.output, program.errors) == ("learning\nSystemExit(143)\n", "")
    load_model(kind, tmp_path / "model")


class Terminate(BaseCallback):
    """Does to its own process what a scheduler does, in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        return True


def be_terminated(kind: str) -> None:
    model = make_model(kind, QuickEnv, **SETTINGS)
    told = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    # A handler of the program's own.
    signal.signal(signal.SIGTERM, note)
    model.learn(4 * ROLLOUT, callback=Terminate())
    assert told == [signal.SIGTERM] and model.num_timesteps == 4 * ROLLOUT
    assert signal.getsignal(signal.SIGTERM) is note
    # A program that ignores it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    model.learn(4 * ROLLOUT, callback=Terminate())
    assert model.num_timesteps == 4 * ROLLOUT
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    # No handler: it is there for as long as learn() runs, however that ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    model.learn(ROLLOUT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    try:
        model.learn(4 * ROLLOUT, callback=Terminate())
    except SystemExit as exit:
        assert exit.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    model.learn(2 * ROLLOUT)
    assert model.num_timesteps == 2 * ROLLOUT
    print("all is as it should be")
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_handler_of_sigterm_is_there_during_learn_unless_the_program_has_one(programs: Programs) -> None:
    program = programs.start(be_terminated, "pipelined")
    assert (program.wait(), program.errors) == (-signal.SIGTERM, "")
    wait_until_gone(program.pid)
    assert program.output == "all is as it should be\n"


class NoteHandler(BaseCallback):
    """Notes what is done about SIGTERM during training."""

    def _on_step(self) -> bool:
        self.handler = signal.getsignal(signal.SIGTERM)
        return True


def test_learn_works_in_a_thread_where_no_signal_can_be_handled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    noted = NoteHandler()
    with make_model("DQN pipelined", QuickEnv, **SETTINGS) as model:
        thread = threading.Thread(target=model.learn, args=(3 * ROLLOUT, noted))
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert model.num_timesteps == 3 * ROLLOUT
    assert noted.handler == signal.getsignal(signal.SIGTERM) == before


# Exceptions


class RaiseAt(BaseCallback):
    """
    Raises in the second rollout, or at the end of training.

    :param hook: name of the method that raises
    """

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def _on_step(self) -> bool:
        return self._raise_at("on_step")

    def _on_rollout_start(self) -> None:
        self._raise_at("on_rollout_start")

    def _on_rollout_end(self) -> None:
        self._raise_at("on_rollout_end")

    def _on_training_start(self) -> None:
        if self.hook == "on_training_start":
            raise KeyboardInterrupt("enough")

    def _on_training_end(self) -> None:
        self._raise_at("on_training_end")

    def _raise_at(self, hook: str) -> bool:
        if self.hook == hook and self.num_timesteps >= ROLLOUT:
            raise KeyboardInterrupt("enough")
        return True


HOOKS = {
    "on_training_start": 0,
    "on_rollout_start": ROLLOUT,
    "on_step": ROLLOUT,
    "on_rollout_end": ROLLOUT,
    "on_training_end": 3 * ROLLOUT,
}


@pytest.mark.parametrize("kind", ["free", "DQN pipelined"])
def test_after_an_interrupt_in_any_hook_the_model_saves_and_learns_on(kind: str, tmp_path: Path) -> None:
    with make_model(kind, QuickEnv, **SETTINGS) as model:
        for hook, timesteps in HOOKS.items():
            with pytest.raises(KeyboardInterrupt, match="enough"):
                model.learn(3 * ROLLOUT, callback=RaiseAt(hook))
            assert model.num_timesteps == timesteps, hook
            model.save(tmp_path / hook)
            assert load_model(kind, tmp_path / hook).num_timesteps == timesteps
            model.learn(3 * ROLLOUT, reset_num_timesteps=False)
            assert model.num_timesteps == timesteps + 3 * ROLLOUT, hook
            model.learn(2 * ROLLOUT)
            assert model.num_timesteps == 2 * ROLLOUT, hook


class InterruptAtCall:
    """
    Raises when this package calls a function of its own for the n-th time, or when a function of the interpreter that
    it has called returns for the n-th time: that is when the interpreter looks whether there was a signal.

    :param n: n
    """

    def __init__(self, n: float) -> None:
        self.n, self.n_calls = n, 0

    def __enter__(self) -> "InterruptAtCall":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(os.path.dirname(sb3_walle.__file__)):
            self.n_calls += 1
            if self.n_calls == self.n:
                sys.setprofile(None)
                raise KeyboardInterrupt("at a random instant")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_after_an_interrupt_at_any_instant_the_model_saves_and_learns_again(kind: str, tmp_path: Path) -> None:
    with make_model(kind, QuickEnv, **SETTINGS) as model:
        with InterruptAtCall(float("inf")) as counter:
            model.learn(4 * ROLLOUT)
        for n in random.sample(range(1, counter.n_calls), 8):
            # Where generators are closed, exceptions are lost.
            with contextlib.suppress(KeyboardInterrupt), InterruptAtCall(n):
                model.learn(4 * ROLLOUT)
            model.save(tmp_path / "model")
            model.learn(2 * ROLLOUT)
            assert model.num_timesteps == 2 * ROLLOUT, f"after an interrupt at call {n}"
