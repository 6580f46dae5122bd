"""What the figures show, as tables."""

import csv
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.figures import walle_report
from benchmarks.figures.figures_settings import FiguresSettings
from benchmarks.figures.iteration_time import IterationTime
from benchmarks.figures.plan import trainee_name

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True)
class Spread:
    """
    Some values of the same thing.

    :param median: their median
    :param low: the lowest
    :param high: the highest
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """
        :param values: at least one value
        :return: their median and range
        """
        found = np.fromiter(values, float)
        return cls(float(np.median(found)), float(found.min()), float(found.max()))


@dataclass(frozen=True)
class SamplersRow:
    """
    Iterations of a number of samplers, which collect in turn with the learner.

    :param workload: what samplers have to do
    :param n_samplers: how many there are
    :param n_iterations: number of iterations
    :param collection_seconds: time of collection in an iteration
    :param speed_up: how many times as fast as that of one sampler collection is. Where one was not measured, that of
        the lowest number is taken to be as many times as fast as they are
    :param learning_seconds: time of learning in an iteration
    :param learning_share: the share of an iteration that is learning
    :param report_collection_seconds: what the report measured, NaN where it did not
    :param report_speed_up: likewise
    :param report_learning_seconds: likewise
    :param report_learning_share: likewise
    """

    workload: str
    n_samplers: int
    n_iterations: int
    collection_seconds: Spread
    speed_up: Spread
    learning_seconds: Spread
    learning_share: Spread
    report_collection_seconds: float
    report_speed_up: float
    report_learning_seconds: float
    report_learning_share: float


def samplers_table(times: Iterable[IterationTime]) -> list[SamplersRow]:
    """:return: those of AsyncPPO in mode ``"sync"``, by workload and number of samplers"""
    rows = []
    in_turn = [row for row in times if row.mode == "sync" and row.contender.startswith("AsyncPPO")]
    for workload, of_workload in grouped((row.workload, row) for row in in_turn).items():
        by_number = grouped((row.n_envs, row) for row in of_workload)
        lowest = min(by_number)
        seconds_of_one = lowest * float(np.median([row.collection for row in by_number[lowest]]))
        rows += [samplers_row(workload, number, by_number[number], seconds_of_one) for number in sorted(by_number)]
    return rows


def samplers_row(workload: str, n_samplers: int, times: Sequence[IterationTime], seconds_of_one: float) -> SamplersRow:
    """
    :param workload: what samplers had to do
    :param n_samplers: how many there were
    :param times: their iterations
    :param seconds_of_one: time of collection of one sampler
    :return: what the iterations took
    """

    def reported(values: Mapping[int, float]) -> float:
        return values.get(n_samplers, float("nan"))

    return SamplersRow(
        workload,
        n_samplers,
        len(times),
        collection_seconds=Spread.of(row.collection for row in times),
        speed_up=Spread.of(seconds_of_one / row.collection for row in times),
        learning_seconds=Spread.of(row.learning for row in times),
        learning_share=Spread.of(row.learning / (row.collection + row.learning) for row in times),
        report_collection_seconds=reported(walle_report.COLLECTION_SECONDS),
        report_speed_up=reported(walle_report.SPEED_UP),
        report_learning_seconds=reported(walle_report.LEARNING_SECONDS),
        report_learning_share=reported(walle_report.LEARNING_SHARE),
    )


@dataclass(frozen=True)
class OverlapRow:
    """
    Iterations from end to end.

    :param workload: what there was to do
    :param contender: who trained
    :param mode: how collection and training overlapped, if they could
    :param n_envs: number of environments
    :param n_iterations: number of iterations
    :param seconds: time of an iteration
    :param waiting_seconds: time of an iteration in which the learner waited for experience
    :param learning_seconds: time of an iteration that is learning
    """

    workload: str
    contender: str
    mode: str
    n_envs: int
    n_iterations: int
    seconds: Spread
    waiting_seconds: Spread
    learning_seconds: Spread


def overlap_table(times: Iterable[IterationTime], n_envs: int) -> list[OverlapRow]:
    """:return: those with so many environments, by workload, contender and mode"""
    chosen = (((row.workload, row.contender, row.mode), row) for row in times if row.n_envs == n_envs)
    return [
        OverlapRow(
            *kind,
            n_envs,
            len(rows),
            seconds=Spread.of(row.collection + row.learning for row in rows),
            waiting_seconds=Spread.of(row.collection for row in rows),
            learning_seconds=Spread.of(row.learning for row in rows),
        )
        for kind, rows in grouped(chosen).items()
    ]


@dataclass(frozen=True)
class ReturnRow:
    """
    Returns of all trainings of a kind in a bin of steps.

    :param workload: what samplers have to do
    :param n_samplers: how many there are
    :param n_seeds: number of trainings
    :param timesteps: the bin's last step, all environments together
    :param minutes: time since the beginning
    :param mean_return: mean return of the episodes that ended in the bin, of the trainings in which one did
    """

    workload: str
    n_samplers: int
    n_seeds: int
    timesteps: int
    minutes: Spread
    mean_return: Spread


def returns_table(
    settings: FiguresSettings, curves: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray]
) -> list[ReturnRow]:
    """
    :param curves: mean returns of the bins of all finished trainings, by who trained, ``[n_seeds, n_bins]``; NaN where
        no episode ended
    :param seconds: how long these trainings took until the end of each bin, ``[n_seeds, n_bins]``
    :return: bins in which an episode ended, by workload and number of samplers
    """
    rows = []
    ends = [settings.timesteps * number // settings.n_bins for number in range(1, settings.n_bins + 1)]
    for workload in settings.learning_workloads:
        for n_samplers in settings.learning_n_samplers:
            name = trainee_name(workload, n_samplers)
            for column, end in enumerate(ends):
                returns = curves[name][:, column] if name in curves else np.empty(0)
                known = returns[~np.isnan(returns)]
                if len(known):
                    minutes = Spread.of(seconds[name][:, column] / 60)
                    rows.append(ReturnRow(workload.name, n_samplers, len(returns), end, minutes, Spread.of(known)))
    return rows


Value = TypeVar("Value")


def grouped(pairs: Iterable[tuple[Kind, Value]]) -> dict[Kind, list[Value]]:
    """
    :param pairs: kinds, and a thing of each
    :return: the things of each kind, in the order in which the kinds came
    """
    groups: dict[Kind, list[Value]] = {}
    for kind, value in pairs:
        groups.setdefault(kind, []).append(value)
    return groups


def save_table(path: Path, rows: Sequence[Any]) -> None:
    """
    Write a CSV file. A spread takes three columns.

    :param rows: dataclasses of the same kind
    """
    flat = [flattened(asdict(row)) for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, flat[0] if flat else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param values: values and mappings by name
    :return: all values, those of the mappings under both names; empty instead of NaN
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}_{inner}": content for inner, content in flattened(value).items()}
        else:
            flat[name] = "" if value != value else value
    return flat
