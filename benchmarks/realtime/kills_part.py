"""Bar 5: what a plant sees when the learner, or the sampler that controls it, is killed."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realtime.plant_env import PlantEnvFactory
from benchmarks.realtime.plant_process import PlantSettings, RunningPlant, running_plant
from benchmarks.realtime.plant_record import PlantRecord, ReceivedAction
from benchmarks.realtime.realtime_contenders import Task
from benchmarks.run_log import RowFormat, RunLog
from benchmarks.speed.start_up import descendants
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle import AsyncSAC

LEARNER, SAMPLER = "learner", "sampler"
ROWS = "kills.csv"
#: ticks within which the fallback action must arrive, and seconds within which another sampler must act
MAX_TICKS, MAX_SECONDS = 2, 1.0
# No policy chooses it.
FALLBACK = 0.123
# From the first action on, before a learner is killed: it learns by then.
SECONDS_BEFORE = (0.5, 3.0)
# How long to wait for what should have happened long before.
PATIENCE = 10.0
START_SECONDS = 120.0


@dataclass(frozen=True)
class Kill:
    """
    :param killed: ``"learner"`` or ``"sampler"``
    :param number: which try
    :param seconds: until the fallback action arrived, or the action of another sampler; infinite if none did
    :param ticks: of the plant that began meanwhile
    :param n_others: actions after the fallback action that were something else
    :param is_closed: whether the environment was closed
    :param n_left: processes that were still there seconds later
    """

    killed: str
    number: int
    seconds: float
    ticks: float
    n_others: int
    is_closed: int
    n_left: int

    @property
    def holds(self) -> bool:
        if self.killed == SAMPLER:
            return self.seconds <= MAX_SECONDS
        return self.ticks <= MAX_TICKS and not self.n_others and bool(self.is_closed) and not self.n_left


KILLS: RowFormat[Kill] = RowFormat(
    "kills",
    {"killed": str, "number": int, "seconds": float, "ticks": float, "n_others": int, "is_closed": int, "n_left": int},
    make=Kill,
    values=astuple,
    run=lambda row: (row.killed, row.number),
)


def run_kills(task: Task, n_kills: dict[str, int], hz: float | None, directory: Path) -> list[Kill]:
    """
    Make the tries that are not there yet.

    :param n_kills: how many, by what is killed
    :param hz: of an environment that keeps time itself, ``None`` where the plant does
    """
    log = RunLog(directory / ROWS, KILLS, 1)
    kill_one = {LEARNER: kill_learner, SAMPLER: kill_sampler}
    for killed, n_tries in n_kills.items():
        for number in range(n_tries):
            if log.is_finished((killed, number)):
                continue
            with running_plant(PlantSettings(task.env_id, task.hz, 0.0 if hz is None else 0.5)) as plant:
                log.add(kill_one[killed](plant, hz, number))
            print(f"[{number + 1}/{n_tries}] {log.finished_runs()[-1][0]}", file=sys.stderr)
    return [row for (row,) in log.finished_runs()]


def kill_learner(plant: RunningPlant, hz: float | None, number: int) -> Kill:
    with learning(plant, hz, on_failure="raise") as pid:
        time.sleep(np.random.default_rng(number).uniform(*SECONDS_BEFORE))
        samplers = descendants(pid)
        killed_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: plant.counts().departures)
        wait_for(lambda: not running(samplers))
        record = plant.record()
        fallback, n_others = fallback_after(record, killed_at)
        is_closed = any(departure.said_so for departure in record.departures)
        return Kill(
            LEARNER, number, *passed(record, killed_at, fallback), n_others, int(is_closed), len(running(samplers))
        )


def kill_sampler(plant: RunningPlant, hz: float | None, number: int) -> Kill:
    with learning(plant, hz, on_failure="restart"):
        time.sleep(np.random.default_rng(number).uniform(*SECONDS_BEFORE))
        sampler = plant.counts().client
        killed_at = time.perf_counter()
        os.kill(sampler, signal.SIGKILL)
        wait_for(lambda: plant.counts().client != sampler)
        record = plant.record()
        return Kill(SAMPLER, number, *passed(record, killed_at, first_of_others(record, sampler)), 0, 0, 0)


def fallback_after(record: PlantRecord, killed_at: float) -> tuple[ReceivedAction | None, int]:
    """:return: the first fallback action since then, and how many actions after it were something else"""
    after = [action for action in record.actions if action.time > killed_at]
    is_fallback = [bool(np.allclose(action.value, FALLBACK, atol=1e-6)) for action in after]
    if True not in is_fallback:
        return None, 0
    first = is_fallback.index(True)
    return after[first], is_fallback[first:].count(False)


def first_of_others(record: PlantRecord, client: int) -> ReceivedAction | None:
    """:return: the first action after a client's last one"""
    last = max(action.time for action in record.actions if action.client == client)
    return next((action for action in record.actions if action.time > last), None)


def passed(record: PlantRecord, killed_at: float, action: ReceivedAction | None) -> tuple[float, float]:
    """:return: seconds and ticks until an action arrived; infinite for none"""
    if action is None:
        return float("inf"), float("inf")
    return action.time - killed_at, action.tick - sum(tick.due <= killed_at for tick in record.ticks)


@contextmanager
def learning(plant: RunningPlant, hz: float | None, on_failure: str) -> Iterator[int]:
    """A learner in a process of its own, which has begun to control the plant. Yields its process."""
    process = multiprocessing.get_context("spawn").Process(
        target=learn_until_killed, args=(plant.address, hz, on_failure)
    )
    process.start()
    try:
        if not wait_for(lambda: plant.counts().actions, START_SECONDS):
            raise RuntimeError(f"The learner has sent no action for {START_SECONDS:.0f} s.")
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


def learn_until_killed(address: str, hz: float | None, on_failure: str) -> None:
    factory = PlantEnvFactory(address, hz)
    env = factory()
    shape = env.action_space.shape
    env.close()
    model = AsyncSAC(
        "MlpPolicy",
        factory,
        n_samplers=1,
        mode="realtime",
        control_hz=hz,
        fallback_action=np.full(shape, FALLBACK, np.float32),
        on_failure=on_failure,
        learner="eager",
        device="cpu",
    )
    model.learn(10_000_000)


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """:return: what the condition has returned, once that is true or time is over"""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def running(pids: set[int]) -> set[int]:
    """:return: those of the processes that still run"""

    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "Z"

    return {pid for pid in pids if state(pid) != "Z"}


def kills_report(task: Task, kills: Sequence[Kill]) -> str:
    rows = []
    for killed in dict.fromkeys(kill.killed for kill in kills):
        of_kind = [kill for kill in kills if kill.killed == killed]
        seconds = [kill.seconds for kill in of_kind]
        rows.append(
            [
                killed,
                f"{sum(kill.holds for kill in of_kind)} of {len(of_kind)}",
                format_number(1e3 * float(np.median(seconds)), 1),
                format_number(1e3 * max(seconds), 1),
                format_number(max(kill.ticks for kill in of_kind)),
            ]
        )
    header = [f"kill -9 of, at {task.hz:g} Hz", "bar holds", "median ms", "longest ms", "most ticks"]
    return (
        f"{format_markdown_table(header, rows)}\n\n"
        f"Learner: until the fallback action arrives at the plant, at most {MAX_TICKS} ticks later; no other action "
        "after it, the environment closed and no process left.\n"
        f"Sampler: until another one acts, at most {MAX_SECONDS:g} s."
    )
