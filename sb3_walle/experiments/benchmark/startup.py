"""How long an algorithm takes to start and to make its first update, and how much memory its processes take."""

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle.experiments.benchmark.settings import BenchmarkSettings
from sb3_walle.experiments.benchmark.throughput import steps_per_env
from sb3_walle.experiments.contenders import Contender, running
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE

PROC = Path("/proc")
# Two steps: SB3 refuses rollouts of one sample, because it normalises advantages.
N_STEPS = 2
# Timesteps of a run that is worth any preparation.
LONG = 100_000_000


@dataclass(frozen=True)
class StartUp:
    """
    What starting cost.

    :param seconds: from the constructor to the end of the first, short rollout
    :param memory_bytes: memory of all processes but the learner's, each shared page counted once among those that
        share it (PSS); None where the operating system does not tell
    """

    seconds: float
    memory_bytes: int | None


def descendants(pid: int) -> set[int]:
    """
    The processes that a process has started, directly or not, and that still run.

    :param pid: id of the process
    :return: their ids
    """
    parents = {}
    for stat in PROC.glob("[0-9]*/stat"):
        # Processes end while we look.
        with suppress(FileNotFoundError, ProcessLookupError):
            # "pid (command) state parent ...": the command may contain anything.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def proportional_set_size(pids: set[int]) -> int | None:
    """
    The memory of some processes.

    :param pids: ids of the processes
    :return: the sum of their PSS in bytes; None where the operating system does not tell
    """
    if not (PROC / "self" / "smaps_rollup").exists():
        return None
    kibibytes = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
            kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kibibytes * 1024


def start_in_process(contender: Contender, env_id: str, results: Connection) -> None:
    """
    Start an algorithm in this process, which should have done nothing else before.

    :param contender: what to start
    :param env_id: Gymnasium id of the environment
    :param results: where to send the :class:`StartUp`
    """
    start = time.perf_counter()
    with running(contender, env_id, n_steps=N_STEPS, batch_size=N_STEPS) as model:
        _, callback = model._setup_learn(total_timesteps=N_STEPS * contender.n_envs)
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=N_STEPS)
        seconds = time.perf_counter() - start
        results.send(StartUp(seconds, proportional_set_size(descendants(os.getpid()))))


class FirstUpdate(BaseCallback):
    """Ends ``learn()`` after the first update, when the second rollout begins."""

    class Done(Exception):
        """The first update is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.n_rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.n_rollouts += 1
        if self.n_rollouts == 2:
            raise self.Done


def update_in_process(contender: Contender, settings: BenchmarkSettings, results: Connection) -> None:
    """
    Make a first update in this process, which should have done nothing else before.

    :param contender: who updates
    :param settings: how
    :param results: where to send the seconds from the constructor to the end of the update
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": settings.n_epochs, "batch_size": settings.batch_size}
    start = time.perf_counter()
    with running(contender, settings.env_id, "pipelined", **ppo) as model:
        try:
            # As in a long run, in which everything pays that takes some time at first.
            model.learn(LONG, callback=FirstUpdate())
        except FirstUpdate.Done:
            results.send(time.perf_counter() - start)


def measure_start_up(contender: Contender, settings: BenchmarkSettings) -> StartUp:
    """
    Start an algorithm in a fresh process: in one that has started samplers before, part of the work is done already.

    :param contender: what to start
    :param settings: what to measure
    :return: what starting cost
    """
    return in_fresh_process(contender.name, start_in_process, contender, settings.env_id)


def measure_first_update(contender: Contender, settings: BenchmarkSettings, cache: str | None = None) -> float:
    """
    Train until the first update is complete, in a fresh process.

    :param contender: who trains
    :param settings: how
    :param cache: where compiled updates are found and kept; by default in the user's cache
    :return: seconds from the constructor to the end of the update
    """
    with mock.patch.dict(os.environ, {} if cache is None else {DIRECTORY_VARIABLE: cache}):
        return in_fresh_process(contender.name, update_in_process, contender, settings)


def in_fresh_process(name: str, target: Callable[..., None], *arguments: Any) -> Any:
    """
    :param name: of whom it is, for the error message
    :param target: function to call in a new process, with the arguments and a connection
    :param arguments: the arguments
    :return: what the function sent through the connection
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Not a daemon, which would not be allowed to start samplers.
    process = context.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{name} could not be started: see the traceback above") from error
    finally:
        process.join()
        receiver.close()
