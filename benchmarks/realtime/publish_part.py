"""
Bar 3: how soon a published policy acts. The learner publishes policies whose action is the same whatever the
observation, and another one for each version, so that the plant sees which version has acted.
"""

import functools
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th

from benchmarks.realtime.control import LONG, UntilStopped, act_on
from benchmarks.realtime.plant_env import PlantEnvFactory
from benchmarks.realtime.plant_process import PlantSettings, running_plant
from benchmarks.realtime.plant_record import PlantRecord, spread
from benchmarks.realtime.realtime_contenders import Task
from benchmarks.realtime.steal import watching_steal, with_little_steal
from benchmarks.run_log import RowFormat, RunLog
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle import AsyncTD3

#: at most a period and this, in seconds
SLACK = 1e-3
ROWS = "published.csv"
LARGEST_MARK = 0.9
# Marks of versions that are near each other differ much.
_GOLDEN = 0.6180339887498949
_TOLERANCE = 1e-5


def mark_of(version: int) -> float:
    """:return: the action of a version, in [-1, 1]"""
    return LARGEST_MARK * (2 * (version * _GOLDEN % 1) - 1)


class MarkedTD3(AsyncTD3):
    """Instead of learning, it takes as long as some gradient steps do, and makes a policy that shows its version."""

    period = 0.0

    def _setup_model(self) -> None:
        super()._setup_model()
        #: when each version was ready, by the version
        self.times: list[float] = []
        self._random = np.random.default_rng(0)
        self._mark(0)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        # At any moment of a period.
        time.sleep(self._random.uniform(0, 2 * self.period))
        self._mark(len(self.times))

    def _mark(self, version: int) -> None:
        output: Any = self.actor.mu[-2]
        with th.no_grad():
            output.weight.zero_()
            output.bias.fill_(float(np.arctanh(mark_of(version))))
        self.times.append(time.perf_counter())


def delays(times: list[float], record: PlantRecord, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """
    :param times: when each version was ready
    :param scale: the largest action of the environment
    :return: seconds from then until the first tick that the version acts on, or a later one does, and until its action
        arrives
    :raises ValueError: if an action is of no version
    """
    marks = np.array([mark_of(version) for version in range(len(times))])
    arrived_at, told_at = np.full(len(times), np.inf), np.full(len(times), np.inf)
    newest = 0
    for action in record.actions:
        found = np.flatnonzero(np.abs(marks - action.value[0] / scale) < _TOLERANCE)
        if len(found) == 0:
            raise ValueError(f"The action {action.value} is of no version.")
        version = int(found[np.argmin(np.abs(found - newest))])
        # The first action of a later one stands for those that it has taken the place of.
        is_first = np.isinf(arrived_at) & (np.arange(len(times)) <= version)
        arrived_at[is_first], told_at[is_first] = action.time, action.time - action.age
        newest = max(newest, version)
    # The first version was there before the plant moved, and the last ones may not have acted yet. In the first tick of
    # an episode, the plant has rested before.
    is_known = np.isfinite(arrived_at) & np.isfinite(told_at)
    is_known[0] = False
    return (told_at - times)[is_known], (arrived_at - times)[is_known]


def learn_marked(address: str, period: float, stop: Any, results: Connection) -> None:
    MarkedTD3.period = period
    model = MarkedTD3(
        "MlpPolicy",
        PlantEnvFactory(address),
        n_samplers=1,
        mode="realtime",
        fallback_action="hold",
        train_freq=1,
        gradient_steps=1,
        learning_starts=0,
        device="cpu",
        learner="eager",
        policy_kwargs={"net_arch": [256, 256]},
    )
    try:
        model.learn(LONG, callback=UntilStopped(stop))
        results.send(model.times)
    finally:
        env = model.get_env()
        assert env is not None
        env.close()


class Published(NamedTuple):
    """
    :param repeat: number of the run
    :param p50: milliseconds from a policy that is ready to the tick whose observation it acts on: median
    :param p99: 99th percentile
    :param largest: maximum
    :param arrival_p99: milliseconds until its first action arrives: 99th percentile
    :param n_versions: of how many policies
    :param steal: share of the processors' time that other guests of the host have taken
    """

    repeat: int
    p50: float
    p99: float
    largest: float
    arrival_p99: float
    n_versions: int
    steal: float


PUBLISHED: RowFormat[Published] = RowFormat(
    "published policies",
    {
        "repeat": int,
        "p50": float,
        "p99": float,
        "largest": float,
        "arrival_p99": float,
        "n_versions": int,
        "steal": float,
    },
    make=Published,
    values=tuple,
    run=lambda row: row.repeat,
)


def run_publishing(task: Task, n_ticks: int, repeats: int, directory: Path) -> list[Published]:
    """:return: all runs, of which those are made that are not in the directory yet"""
    log = RunLog(directory / ROWS, PUBLISHED, 1)
    for repeat in range(repeats):
        if not log.is_finished(repeat):
            log.add(with_little_steal(lambda: measure_publishing(task, n_ticks, repeat)))  # noqa: B023
    return [row for (row,) in log.finished_runs()]


def measure_publishing(task: Task, n_ticks: int, repeat: int) -> Published:
    with watching_steal() as steal, running_plant(PlantSettings(task.env_id, task.hz)) as plant:
        times = act_on(plant, n_ticks, "MarkedTD3", learn_marked, plant.address, task.period)
        record = plant.record().until(n_ticks)
    until_tick, until_action = delays(times, record, scale=largest_action(task.env_id))
    p50, p99, largest = (1e3 * seconds for seconds in spread(until_tick))
    arrival_p99 = 1e3 * spread(until_action).p99
    return Published(repeat, p50, p99, largest, arrival_p99, len(until_tick), steal.share)


def publishing_report(task: Task, runs: Sequence[Published]) -> str:
    bar = 1e3 * (task.period + SLACK)
    rows = [
        [
            str(run.repeat),
            format_number(run.n_versions),
            *(format_number(milliseconds, 2) for milliseconds in (run.p50, run.p99, run.largest)),
            "yes" if run.p99 <= bar else "NO",
            format_number(run.arrival_p99, 2),
            format_number(100 * run.steal, 1),
        ]
        for run in runs
    ]
    header = [
        "run",
        "policies",
        "p50, ms",
        "p99, ms",
        "max, ms",
        f"p99 at most {bar:g} ms",
        "action arrives p99, ms",
        "steal, %",
    ]
    return f"From a policy that is ready to the tick that it acts on:\n\n{format_markdown_table(header, rows)}"


@functools.cache
def largest_action(env_id: str) -> float:
    from sb3_walle.cli.environments import check_environment

    space: Any = check_environment(env_id).action_space
    return float(space.high.flat[0])
