"""
A learner that ends, is forked or is forgotten: nothing hangs, nothing is printed, no process and no zombie is left,
and other processes are not affected.
"""

import functools
import gc
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from typing import Any

import pytest
from fault_envs import LoudEnv, ParentEnv, QuickEnv
from fault_models import make_model
from lifecycle_helpers import same, weights_of
from process_helpers import (
    Programs,
    children_with_state,
    is_alive,
    kill,
    members_of_session,
    wait_until,
    wait_until_gone,
)
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import SamplerError, SamplerVecEnv
from sb3_walle.backends.client import SamplerClient
from sb3_walle.backends.supervised_sampler import SupervisedSampler
from sb3_walle.samplers.errors import SamplerWarning

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "n_samplers": 2}
# Samples of a rollout
ROLLOUT = 2 * 32


# Forks of the learner


def fork_and_wait(model: Any, way: str) -> None:
    """Fork this process. The child ends in some way, which no other process notices."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    if way == "sys.exit":
        sys.exit(0)
    if way == "use":
        assert model.env is not None
        model.predict(model.observation_space.sample())
        for use in (model.env.reset, functools.partial(model.env.get_attr, "steps"), model.learn):
            try:
                use(ROLLOUT) if use is model.learn else use()
            except SamplerError as error:
                assert "belong to the process that this one was forked from" in str(error)
            else:
                raise AssertionError(f"{use} does not fail")
        model.env.close()
    os._exit(0)


class ForkInTraining(BaseCallback):
    """Forks in the second rollout, while samplers collect."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            fork_and_wait(self.model, self.way)
        return True


def fork(way: str, kind: str) -> None:
    with make_model(kind, functools.partial(QuickEnv, 0.002), **SETTINGS) as model:
        model.learn(ROLLOUT)
        fork_and_wait(model, way)
        model.learn(4 * ROLLOUT, callback=ForkInTraining(way))
        assert model.num_timesteps == 4 * ROLLOUT
        assert model.env.client.n_restarts == 0  # type: ignore[union-attr]
    print("the samplers still work")


@pytest.mark.parametrize(
    ("way", "kind"),
    [("sys.exit", "pipelined"), ("os._exit", "free"), ("use", "sync"), ("use", "DQN pipelined")],
)
def test_a_forked_copy_of_the_learner_ends_without_a_trace(way: str, kind: str, programs: Programs) -> None:
    program = programs.start(fork, way, kind)
    program.check_success()
    assert program.output == "the samplers still work\n"


def fork_and_be_killed() -> None:
    env = SamplerVecEnv([QuickEnv] * 2)
    child = os.fork()
    if child == 0:
        time.sleep(600)
    env.reset()
    print(child)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_forked_copy_of_the_learner_does_not_keep_samplers_alive(programs: Programs) -> None:
    program = programs.start(fork_and_be_killed)
    assert program.wait() == -signal.SIGKILL
    child = int(program.output)
    wait_until(lambda: members_of_session(program.pid) == [child], "only the copy is left")
    kill(child)


# What is printed


def build_loud_environments() -> None:
    SamplerVecEnv([LoudEnv] * 5).close()


def test_warnings_of_environments_appear_once(programs: Programs) -> None:
    program = programs.start(build_loud_environments)
    assert program.wait() == 0
    assert program.errors.count("UserWarning: this simulator is old") == 1
    assert program.errors.count("native warning") == 1


# Forgotten models


class Stop(BaseCallback):
    """Raises in the middle of training."""

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            raise RuntimeError("enough")
        return True


@pytest.mark.parametrize("kind", ["free", "DQN pipelined"])
def test_a_model_in_a_reference_cycle_is_collected_with_its_samplers(kind: str) -> None:
    model = make_model(kind, functools.partial(ParentEnv, 0.002), **SETTINGS)
    assert isinstance(model.env, SamplerVecEnv)
    pids = [*model.env.env_method("server_pid"), *model.env.env_method("pid"), *model.env.get_attr("child_pid")]
    # SB3's callbacks refer to the model. So does the traceback, and the model to it.
    callback = Stop()
    callback.error = None  # type: ignore[attr-defined]
    try:
        model.learn(10_000, callback=callback)
    except RuntimeError as error:
        callback.error = error  # type: ignore[attr-defined]
    model.callback = callback  # type: ignore[attr-defined]
    reference = weakref.ref(model)
    assert all(map(is_alive, pids))
    del model, callback
    gc.collect()
    assert reference() is None
    wait_until(lambda: not any(map(is_alive, pids)), "the samplers and what they have started are gone")


# The end of the interpreter


class Leave(BaseCallback):
    """
    Leaves the program in the second rollout.

    :param way: how
    """

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def _on_step(self) -> bool:
        if self.n_calls == 40:
            if self.way == "sys.exit":
                sys.exit(3)
            if self.way == "os._exit":
                os._exit(3)
            time.sleep(600)
        return True


def leave_in_training(way: str, kind: str) -> None:
    model = make_model(kind, functools.partial(ParentEnv, 0.01), **SETTINGS)
    model.learn(1_000_000, callback=Leave(way))


@pytest.mark.parametrize(
    ("way", "kind"),
    [("sys.exit", "sync"), ("os._exit", "pipelined"), ("os._exit", "free"), ("sys.exit", "DQN pipelined")],
)
def test_leaving_in_the_middle_of_training_leaves_nothing(way: str, kind: str, programs: Programs) -> None:
    program = programs.start(leave_in_training, way, kind)
    assert (program.wait(), program.output, program.errors) == (3, "", "")
    wait_until_gone(program.pid)


def leave_with_samplers(kind: str) -> None:
    # All that a program can forget to close: samplers that were never used, samplers in lockstep, and those of a model.
    unused = SamplerVecEnv([ParentEnv])
    lockstep = SamplerVecEnv([ParentEnv])
    lockstep.reset()
    lockstep.step([0])  # type: ignore[arg-type]
    model = make_model(kind, ParentEnv, **SETTINGS).learn(2 * ROLLOUT)
    zombies = [pid for pid, state in children_with_state(os.getpid()).items() if state == "Z"]
    print(len(children_with_state(os.getpid())), zombies, model.num_timesteps, unused.num_envs)


def test_the_end_of_the_program_ends_its_samplers(programs: Programs) -> None:
    program = programs.start(leave_with_samplers, "pipelined")
    program.check_success()
    assert program.output == f"3 [] {2 * ROLLOUT} 1\n"


def leave_a_thread_behind(kind: str) -> None:
    env = functools.partial(ParentEnv, 0.01)
    model = make_model(kind, env, **SETTINGS)
    threading.Thread(target=model.learn, args=(1_000_000,), daemon=True).start()
    wait_until(lambda: model.num_timesteps >= 2 * ROLLOUT, "the second rollout has been collected")


def test_the_end_of_the_program_does_not_wait_for_a_thread_that_learns(programs: Programs) -> None:
    program = programs.start(leave_a_thread_behind, "DQN pipelined")
    assert program.wait() == 0
    wait_until_gone(program.pid)


# Zombies


def test_no_zombie_is_left_while_samplers_are_replaced() -> None:
    with warnings.catch_warnings(), SamplerVecEnv([QuickEnv] * 2) as env:
        warnings.simplefilter("ignore", SamplerWarning)
        server, *_ = env.env_method("server_pid")
        for _ in range(4):
            kill(env.env_method("pid")[0])
            env.reset()
        samplers = set(env.env_method("pid"))
        wait_until(lambda: children_with_state(server).keys() == samplers, "only those that live are left")
        # Killed with all its samplers, and replaced.
        kill(server)
        wait_until(lambda: not any(map(is_alive, samplers)), "its samplers are dead, too")
        env.reset()
        assert server not in children_with_state(os.getpid())
        assert env.client.n_restarts == 4 + 2


# Two models


class LearnBeside(BaseCallback):
    """
    Has another model learn at the end of each rollout.

    :param other: the other model
    :param with_kills: whether its samplers are killed before that
    """

    def __init__(self, other: Any, with_kills: bool) -> None:
        super().__init__()
        self.other, self.with_kills = other, with_kills

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert self.other.env is not None
        if self.with_kills:
            for pid in self.other.env.env_method("pid"):
                kill(pid)
        self.other.learn(2 * ROLLOUT, reset_num_timesteps=False)


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_a_model_does_not_notice_that_samplers_of_another_one_are_killed() -> None:
    def train(with_kills: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        with (
            make_model("pipelined", QuickEnv, seed=1, **SETTINGS) as other,
            make_model("pipelined", QuickEnv, seed=0, **SETTINGS) as model,
        ):
            model.learn(4 * ROLLOUT, callback=LearnBeside(other, with_kills))
            assert other.num_timesteps == 4 * 2 * ROLLOUT
            assert other.env.client.n_restarts == (4 * 2 if with_kills else 0)  # type: ignore[union-attr]
            assert model.env.client.n_restarts == 0  # type: ignore[union-attr]
            return weights_of(model), weights_of(other)

    undisturbed, with_kills = train(with_kills=False), train(with_kills=True)
    assert same(undisturbed[0], with_kills[0])
    # The comparison means something: those who take the place of killed samplers draw other numbers.
    assert not same(undisturbed[1], with_kills[1])


def test_closing_one_of_two_models_leaves_the_other_alone() -> None:
    with make_model("DQN pipelined", QuickEnv, **SETTINGS) as model:
        with make_model("DQN pipelined", QuickEnv, **SETTINGS) as other:
            other.learn(ROLLOUT)
            model.learn(ROLLOUT)
        model.learn(ROLLOUT, reset_num_timesteps=False)
        assert model.num_timesteps == 2 * ROLLOUT
        assert len(children_with_state(model.env.env_method("server_pid")[0])) == 2  # type: ignore[union-attr]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


# Ctrl-C in the few instructions between the arrival of something and its being noted


@pytest.mark.filterwarnings("ignore::sb3_walle.SamplerWarning")
def test_death_that_control_c_keeps_from_being_noted_is_noted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with SamplerVecEnv([QuickEnv]) as env:
        kill(env.env_method("pid")[0])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SamplerClient, "_replace", interrupt)
            env.reset()
        env.reset()
        assert env.client.n_restarts == 1


@pytest.mark.filterwarnings("ignore::sb3_walle.SamplerWarning")
def test_answer_that_control_c_keeps_from_being_noted_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with SamplerVecEnv([QuickEnv]) as env:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SupervisedSampler, "answer", interrupt)
            env.set_attr("mark", 1)
        env.set_attr("mark", 2)
        kill(env.env_method("pid")[0])
        env.reset()
        assert env.get_attr("mark") == [2]
