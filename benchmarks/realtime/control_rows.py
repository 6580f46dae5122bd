"""What is kept of a run in which a contender controls a plant."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realtime.control import Controlled
from benchmarks.realtime.plant_record import periods, statistics
from benchmarks.realtime.realtime_contenders import Task
from benchmarks.run_log import RowFormat

#: of the last episodes, a return
N_LAST = 10


@dataclass(frozen=True)
class ControlRow:
    """
    A run. Times of ages, periods and the plant's own lateness are in milliseconds.

    :param repeat: its number, from 0, and its seed
    :param missed: share of ticks without a fresh action
    :param longest_gap: most ticks from one fresh action to the next
    :param parked: seconds in which the plant stood still between episodes
    :param ratio: gradient steps for each step, from the first update on
    :param asked: gradient steps for each step that were asked for
    :param last_return: mean return of the last episodes
    :param seconds: that the run took, from the plant's first tick on
    :param steal: share of the processors' time that other guests of the host have taken
    """

    contender: str
    repeat: int
    n_ticks: int
    missed: float
    longest_gap: int
    age_p50: float
    age_p99: float
    age_max: float
    period_p50: float
    period_p99: float
    period_max: float
    lateness_p99: float
    parked: float
    n_steps: int
    n_gradient_steps: int
    ratio: float
    asked: float
    last_return: float
    seconds: float
    steal: float
    scheduling: str

    @property
    def ratio_of_asked(self) -> float:
        return self.ratio / self.asked


_TYPES: dict[Any, type] = {"str": str, "int": int, "float": float, str: str, int: int, float: float}
CONTROL_ROWS: RowFormat[ControlRow] = RowFormat(
    "runs in real time",
    {field.name: _TYPES[field.type] for field in fields(ControlRow)},
    make=ControlRow,
    values=astuple,
    run=lambda row: (row.contender, row.repeat),
)


def control_row(contender: str, repeat: int, task: Task, controlled: Controlled) -> ControlRow:
    found, learning = statistics(controlled.record), controlled.learning
    returns = [episode.episode_return for episode in controlled.record.episodes[-N_LAST:]]
    return ControlRow(
        contender,
        repeat,
        found.n_ticks,
        found.missed,
        found.longest_gap,
        1e3 * found.ages.p50,
        1e3 * found.ages.p99,
        1e3 * found.ages.largest,
        1e3 * found.periods.p50,
        1e3 * found.periods.p99,
        1e3 * found.periods.largest,
        1e3 * found.lateness,
        found.parked,
        learning.n_steps,
        learning.n_gradient_steps,
        learning.ratio,
        task.gradient_steps / task.train_freq,
        float(np.mean(returns)) if returns else float("nan"),
        controlled.seconds,
        controlled.steal,
        controlled.record.scheduling,
    )


def save_samples(controlled: Controlled, path: Path) -> None:
    """Keep what figures need: ages and periods of all actions in seconds, and when which episode ended."""
    record = controlled.record
    began = record.actions[0].time
    np.savez_compressed(
        path,
        ages=np.array([action.age for action in record.actions]),
        periods=periods(record),
        ended=np.array([episode.ended - began for episode in record.episodes]),
        n_ticks=np.array([episode.n_ticks for episode in record.episodes]),
        returns=np.array([episode.episode_return for episode in record.episodes]),
    )


def samples_path(directory: Path, contender: str, repeat: int) -> Path:
    name = "".join(letter if letter.isalnum() else "_" for letter in contender)
    return directory / f"{name}-{repeat}.npz"
