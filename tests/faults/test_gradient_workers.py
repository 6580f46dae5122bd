"""Gradient workers that die, in every phase: no hang, nothing left, and the numbers of an update without a death."""

import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from process_helpers import Programs, is_alive, kill, members_of_session, wait_until, wait_until_gone
from shared_updates import SharedUpdates, program_of, state_of
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_envs import RandomWalk

from sb3_walle.gradient_workers import workers
from sb3_walle.gradient_workers.learners import Learners

N_LEARNERS = 3
# Fewer than a soak makes: SB3_WALLE_TEST_KILLS=200.
N_KILLS = int(os.environ.get("SB3_WALLE_TEST_KILLS", "60"))
CALLS = {"gradient": "0", "sum": "1", "step": "2"}


def made(**settings: Any) -> PPO:
    """A model of SB3's with a rollout of four minibatches, the same one every time."""
    arguments = {"n_steps": 48, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [4]}, **settings}
    model = PPO("MlpPolicy", DummyVecEnv([RandomWalk]), seed=3, device="cpu", **arguments)
    model.env.seed(5)
    _, callback = model._setup_learn(10**6)
    model.set_logger(Logger(None, []))
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


@pytest.fixture
def updates() -> Iterator[SharedUpdates]:
    found = SharedUpdates(made(), N_LEARNERS)
    yield found
    found.workers.close()


def expected(n_updates: int) -> dict[str, Any]:
    """The state after so many updates that no worker has taken part in."""
    alone = SharedUpdates(made(), N_LEARNERS)
    for number in range(n_updates):
        alone.train(number)
    return state_of(alone.update)


def assert_equal(found: Any, wanted: Any) -> None:
    """To the last bit."""
    np.testing.assert_equal(as_arrays(found), as_arrays(wanted))


def as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_arrays(part) for part in value]
    return value.numpy() if isinstance(value, th.Tensor) else value


def start(updates: SharedUpdates, folder: Path) -> list[int]:
    """Start all workers, and wait until they are ready. Returns their processes."""
    updates.start_workers(folder)
    updates.workers.wait_until_ready()
    assert len(updates.workers._workers) == N_LEARNERS - 1
    return updates.worker_processes()


def test_workers_change_no_number(updates: SharedUpdates, tmp_path: Path) -> None:
    start(updates, tmp_path)
    # Otherwise the learner would compute their shares, too.
    updates.programs["update"].calls[1:] = [[]] * (N_LEARNERS - 1)  # type: ignore[attr-defined]
    for number in range(3):
        updates.train(number)
    assert_equal(state_of(updates.update), expected(3))
    assert updates.workers.n_restarts == 0


def test_a_worker_that_is_idle_dies(updates: SharedUpdates, tmp_path: Path) -> None:
    processes = start(updates, tmp_path)
    kill(processes[0])
    updates.train(0)
    with pytest.warns(UserWarning, match=r"Gradient worker \d was killed by signal 9") as told:
        assert len(start(updates, tmp_path)) == N_LEARNERS - 1
    updates.train(1)
    # Of the next one, only the log tells.
    for process in updates.worker_processes():
        kill(process)
    updates.train(2)
    start(updates, tmp_path)
    assert len(told) == 1 and updates.workers.n_restarts == N_LEARNERS
    assert_equal(state_of(updates.update), expected(3))


@pytest.mark.parametrize("call", CALLS)
def test_a_worker_that_computes_dies(call: str, updates: SharedUpdates, tmp_path: Path) -> None:
    updates.start_workers(tmp_path, hold=CALLS[call])
    updates.workers.wait_until_ready()

    def kill_all() -> None:
        for process in stopped(tmp_path, N_LEARNERS - 1):
            kill(process)

    with running(kill_all):
        updates.train(0)
    with pytest.warns(UserWarning, match="died|killed"):
        start(updates, tmp_path)
    updates.train(1)
    assert updates.workers.n_restarts == N_LEARNERS - 1
    assert_equal(state_of(updates.update), expected(2))


def test_a_worker_that_is_stopped_is_ended(
    updates: SharedUpdates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.5)
    processes = start(updates, tmp_path)
    os.kill(processes[0], signal.SIGSTOP)
    with pytest.warns(UserWarning, match=r"Gradient worker \d has not answered for 0\.5 s, and was ended"):
        updates.train(0)
    assert not is_alive(processes[0])
    start(updates, tmp_path)
    updates.train(1)
    assert updates.workers.n_restarts == 1
    assert_equal(state_of(updates.update), expected(2))


def test_a_worker_that_is_not_ready_is_not_waited_for(updates: SharedUpdates, tmp_path: Path) -> None:
    updates.start_workers(tmp_path, hold="loaded")
    processes = stopped(tmp_path, N_LEARNERS - 1)
    updates.train(0)
    assert updates.workers.n_restarts == 0
    kill(processes[0])
    updates.train(1)
    (tmp_path / "go").touch()
    with pytest.warns(UserWarning, match="killed"):
        updates.start_workers(tmp_path)
        start(updates, tmp_path)
    updates.train(2)
    assert_equal(state_of(updates.update), expected(3))


def test_the_process_that_workers_are_forked_from_dies(updates: SharedUpdates, tmp_path: Path) -> None:
    processes = start(updates, tmp_path)
    assert updates.workers._server is not None
    kill(updates.workers._server._process.pid)
    wait_until(lambda: not any(map(is_alive, processes)), "the workers are dead, too")
    updates.train(0)
    with pytest.warns(UserWarning, match="died with the process"):
        start(updates, tmp_path)
    updates.train(1)
    assert updates.workers.n_restarts == N_LEARNERS - 1
    assert_equal(state_of(updates.update), expected(2))


def test_an_exception_while_workers_compute_puts_nothing_out_of_step(updates: SharedUpdates, tmp_path: Path) -> None:
    """Such as Ctrl-C. What workers have not finished then must not be taken for what they are asked next."""
    updates.start_workers(tmp_path, hold=CALLS["gradient"])
    updates.workers.wait_until_ready()
    before = updates.worker_processes()

    def interrupt() -> None:
        stopped(tmp_path, N_LEARNERS - 1)
        os.kill(os.getpid(), signal.SIGINT)

    with running(interrupt), pytest.raises(KeyboardInterrupt):
        updates.train(0)
    assert_equal(state_of(updates.update)["policy"], dict(made().policy.state_dict()))
    with warnings.catch_warnings():
        # None has died by itself.
        warnings.simplefilter("error")
        after = start(updates, tmp_path)
    assert not {*before} & {*after}
    assert updates.workers.n_restarts == 0
    for number in range(2):
        updates.train(number)
    assert_equal(state_of(updates.update), expected(2))


def test_an_exception_while_slices_are_made_leaves_none_behind(updates: SharedUpdates, tmp_path: Path) -> None:
    updates.start_workers(tmp_path, hold=CALLS["step"])
    updates.workers.wait_until_ready()

    def interrupt() -> None:
        stopped(tmp_path, N_LEARNERS - 1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        (tmp_path / "go").touch()

    with running(interrupt), pytest.raises(KeyboardInterrupt):
        updates.train(0)
    alone = SharedUpdates(made(), N_LEARNERS)
    alone.programs = {"update": interrupted_after(alone.programs["update"])}
    with pytest.raises(KeyboardInterrupt):
        alone.train(0)
    assert_equal(state_of(updates.update), state_of(alone.update))


def interrupted_after(program: Callable[[list[th.Tensor]], th.Tensor]) -> Callable[[list[th.Tensor]], th.Tensor]:
    def make(inputs: list[th.Tensor]) -> th.Tensor:
        program(inputs)
        raise KeyboardInterrupt

    return make


@pytest.mark.filterwarnings("ignore:Gradient worker")
def test_many_deaths_change_no_number(updates: SharedUpdates, tmp_path: Path) -> None:
    start(updates, tmp_path)
    over, n_killed, pick = threading.Event(), 0, random.Random(0)

    def kill_at_random() -> None:
        nonlocal n_killed
        while n_killed < N_KILLS and not over.is_set():
            time.sleep(pick.uniform(0, 0.02))
            for process in pick.sample(found := updates.worker_processes(), min(1, len(found))):
                kill(process)
                n_killed += 1

    number = 0
    with running(kill_at_random) as killer:
        try:
            while killer.is_alive():
                updates.start_workers(tmp_path)
                updates.train(number)
                number += 1
        finally:
            over.set()
    assert n_killed == N_KILLS
    start(updates, tmp_path)
    assert updates.workers.n_restarts > N_KILLS / 2
    assert_equal(state_of(updates.update), expected(number))


# The learner dies


def learn(folder: str) -> None:
    """Has its workers stop in the middle of a call."""
    updates = SharedUpdates(made(), N_LEARNERS)
    updates.start_workers(Path(folder), hold=CALLS["gradient"])
    updates.workers.wait_until_ready()
    updates.train(0)


@pytest.mark.parametrize("kills_group", [False, True])
def test_nothing_outlives_a_learner_that_is_killed_while_workers_compute(
    kills_group: bool, programs: Programs, tmp_path: Path
) -> None:
    shared_files = set(os.listdir("/dev/shm"))
    program = programs.start(learn, tmp_path)
    processes = stopped(tmp_path, N_LEARNERS - 1)
    assert {*processes} < {*members_of_session(program.pid)}
    (os.killpg if kills_group else os.kill)(program.pid, signal.SIGKILL)
    wait_until_gone(program.pid)
    assert set(os.listdir("/dev/shm")) == shared_files


def test_closing_ends_all_processes(updates: SharedUpdates, tmp_path: Path) -> None:
    processes = start(updates, tmp_path)
    assert updates.workers._server is not None
    processes.append(updates.workers._server._process.pid)
    updates.workers.close()
    assert not any(map(is_alive, processes))
    # And the learner computes what it is not helped with.
    updates.train(0)
    assert_equal(state_of(updates.update), expected(1))


def test_a_fork_of_the_learner_has_a_copy(updates: SharedUpdates, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two learn afterwards is their own."""
    learners = Learners(N_LEARNERS)
    monkeypatch.setattr(learners.workers, "start", lambda make_job: None)
    halves = {name: program_of(half) for name, half in updates.division.halves.items()}

    def train(number: int) -> None:
        updates.programs = learners.begin(updates.division, updates.groups, updates.steps, halves)
        updates.train(number)

    train(0)
    wanted, programs = [expected(n) for n in (1, 2, 3)], updates.programs
    has_trained, trains = os.pipe()
    child = os.fork()
    if not child:
        os._exit(learns_from_where_it_was_forked(updates, wanted, train, has_trained))
    train(1)
    train(2)
    os.write(trains, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert updates.programs is programs
    assert_equal(state_of(updates.update), wanted[2])


def learns_from_where_it_was_forked(
    updates: SharedUpdates, wanted: list[dict[str, Any]], train: Callable[[int], None], may_begin: int
) -> int:
    """Exit code of a fork."""
    try:
        os.read(may_begin, 1)
        assert_equal(state_of(updates.update), wanted[0])
        train(1)
        assert_equal(state_of(updates.update), wanted[1])
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def stopped(folder: Path, n: int) -> list[int]:
    """Wait until so many workers have stopped where they were told to. Returns their processes."""
    wait_until(lambda: len(list(folder.glob("*.stopped"))) == n, "workers have stopped")
    return [int(path.stem) for path in folder.glob("*.stopped")]


class running:
    """A function in a thread of its own for the length of a block."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=function)

    def __enter__(self) -> threading.Thread:
        self._thread.start()
        return self._thread

    def __exit__(self, *_: object) -> None:
        self._thread.join()
