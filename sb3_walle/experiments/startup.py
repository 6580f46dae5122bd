"""How long an algorithm takes to start, and how much memory its processes take."""

import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from sb3_walle.experiments.contenders import BenchmarkSettings, Contender, running

PROC = Path("/proc")
# Two steps: SB3 refuses rollouts of one sample, because it normalises advantages.
N_STEPS = 2


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


def measure_start_up(contender: Contender, settings: BenchmarkSettings) -> StartUp:
    """
    Start an algorithm in a fresh process: in one that has started samplers before, part of the work is done already.

    :param contender: what to start
    :param settings: what to measure
    :return: what starting cost
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Not a daemon, which would not be allowed to start samplers.
    process = context.Process(target=start_in_process, args=(contender, settings.env_id, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{contender.name} could not be started: see the traceback above") from error
    finally:
        process.join()
        receiver.close()
