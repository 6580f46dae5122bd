"""How long an algorithm takes to start and to make its first update, and how much memory its processes take."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.contenders import Trainee
from benchmarks.speed.measurements import Found, Medians, is_sb3s
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.text_tables import format_number
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE

START_UP, MEMORY, FIRST_UPDATE = "start-up, s", "memory of processes, MB", "first update, s"
FIRST_RUN = "first run"
SUBPROC = "SubprocVecEnv"
PROC = Path("/proc")
# Two steps: SB3 refuses rollouts of one sample, because it normalises advantages.
N_STEPS = 2
# Timesteps of a run that is worth any preparation.
LONG = 100_000_000


def measure_starts(settings: PPOSpeed) -> Iterator[Found]:
    """:return: what it takes to start, and to make the first update"""
    for trainee in replace(settings, learner="eager").trainees():
        # DummyVecEnv starts no processes.
        if "DummyVecEnv" not in trainee.name:
            seconds, memory_bytes = in_fresh_process(trainee.name, start_in_process, trainee, settings.env_id)
            yield START_UP, trainee.name, seconds
            if memory_bytes is not None:
                yield MEMORY, trainee.name, 1e-6 * memory_bytes
    # As users have it: "auto" does not wait for a compiler.
    default, *others = replace(settings, learner="eager" if settings.learner == "eager" else "auto").trainees()
    with TemporaryDirectory() as empty:
        yield FIRST_UPDATE, f"{default.name}, {FIRST_RUN}", measure_first_update(default, settings.env_id, empty)
    for trainee in (default, *(each for each in others if is_sb3s(each.name))):
        yield FIRST_UPDATE, trainee.name, measure_first_update(trainee, settings.env_id)


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


class End(BaseCallback):
    """
    Ends ``learn()`` early.

    :param with_update: whether to end it after the first update, or with the first rollout
    """

    class Reached(Exception):
        """The first rollout or update is complete."""

    def __init__(self, with_update: bool) -> None:
        super().__init__()
        self._with_update = with_update

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:
            raise self.Reached

    def _on_rollout_end(self) -> None:
        if not self._with_update:
            raise self.Reached


def start_in_process(trainee: Trainee, env_id: str, results: Connection) -> None:
    """
    Start an algorithm in this process, which should have done nothing else before.

    :param trainee: what to start
    :param results: where to send the seconds from the constructor to the end of a short rollout, and the bytes of
        memory of all processes but this one, None where the operating system does not tell
    """
    start = time.perf_counter()
    with trainee.running(env_id, mode="sync", n_steps=N_STEPS, batch_size=N_STEPS) as model:
        with suppress(End.Reached):
            model.learn(N_STEPS * model.n_envs, callback=End(with_update=False))
        seconds = time.perf_counter() - start
        results.send((seconds, proportional_set_size(descendants(os.getpid()))))


def update_in_process(trainee: Trainee, env_id: str, results: Connection) -> None:
    """
    Make a first update in this process, which should have done nothing else before.

    :param trainee: who updates
    :param results: where to send the seconds from the constructor to the end of the update
    """
    start = time.perf_counter()
    with trainee.running(env_id) as model:
        with suppress(End.Reached):
            # As in a long run, in which everything pays that takes some time at first.
            model.learn(LONG, callback=End(with_update=True))
        results.send(time.perf_counter() - start)


def measure_first_update(trainee: Trainee, env_id: str, cache: str | None = None) -> float:
    """
    Train until the first update is complete, in a fresh process.

    :param cache: where compiled updates are found and kept; by default in the user's cache
    :return: seconds from the constructor to the end of the update
    """
    with mock.patch.dict(os.environ, {} if cache is None else {DIRECTORY_VARIABLE: cache}):
        return in_fresh_process(trainee.name, update_in_process, trainee, env_id)


def in_fresh_process(name: str, target: Callable[..., None], *arguments: Any) -> Any:
    """
    :param name: name of the contender, for the error message
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


def start_tables(medians: Medians) -> str:
    """
    :param medians: what starts take
    :return: a table of start-up, and one of first updates
    """
    starts, memory, updates = (medians.of(quantity) for quantity in (START_UP, MEMORY, FIRST_UPDATE))
    subproc = next((name for name in starts if SUBPROC in name), "")
    rows = [
        [
            name,
            format_number(seconds, 2),
            format_ratio(seconds, starts.get(subproc)),
            format_number(memory.get(name)),
            format_ratio(memory.get(name), memory.get(subproc)),
        ]
        for name, seconds in starts.items()
    ]
    start_up = format_table(["start-up", "seconds", f"vs {SUBPROC}", "memory (MB)", f"vs {SUBPROC}"], rows)
    best = min((seconds for name, seconds in updates.items() if is_sb3s(name)), default=None)
    rows = [[name, format_number(seconds, 1), format_ratio(seconds, best)] for name, seconds in updates.items()]
    return start_up + "\n\n" + format_table(["first update", "seconds", "vs best SB3"], rows)
