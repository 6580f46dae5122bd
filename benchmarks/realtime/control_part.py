"""The bars of control: every contender controls the same plant, again and again, by turns."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.realtime.control import control
from benchmarks.realtime.control_rows import CONTROL_ROWS, ControlRow, control_row, samples_path, save_samples
from benchmarks.realtime.realtime_contenders import PACED, REALTIME, Contender, Task
from benchmarks.realtime.steal import with_little_steal
from benchmarks.run_log import RunLog
from benchmarks.text_tables import format_markdown_table, format_number

ROWS = "runs.csv"


@dataclass(frozen=True)
class Bars:
    """
    :param missed: share of ticks without a fresh action at most
    :param longest_gap: most ticks from one fresh action to the next, ``None`` for any number
    :param age_p99: milliseconds
    :param ratio: share of the gradient steps that were asked for at least
    """

    missed: float
    age_p99: float
    longest_gap: int | None = None
    ratio: float | None = None

    def of(self, rows: Sequence[ControlRow]) -> list[tuple[str, str, str, bool]]:
        """:return: name, bar, median and whether it holds in the worst of the runs, too"""
        checks: list[tuple[str, float | None, Callable[[ControlRow], float], int]] = [
            ("ticks missed, %", 100 * self.missed, lambda row: 100 * row.missed, 1),
            ("longest gap, ticks", self.longest_gap, lambda row: row.longest_gap, 1),
            ("action age p99, ms", self.age_p99, lambda row: row.age_p99, 1),
            ("replay ratio of what was asked", self.ratio, lambda row: row.ratio_of_asked, -1),
        ]
        found = []
        for name, bar, value, sign in checks:
            if bar is None:
                continue
            values = [value(row) for row in rows]
            worst = max(values, key=lambda each: sign * each)
            middle = median(values)
            text = f"{middle:.3g}, worst {worst:.3g}"
            found.append((name, f"{'at most' if sign == 1 else 'at least'} {bar:g}", text, sign * middle <= sign * bar))
        return found


#: "plant": 50 Hz, with as many gradient steps as need most of a core; "fast": 500 Hz, a gradient step every fourth
BARS = {"plant": Bars(0.001, 2.0, longest_gap=2, ratio=0.9), "fast": Bars(0.01, 1.5)}


def run_control(
    task: Task, entrants: Sequence[Contender], n_ticks: int, repeats: int, directory: Path
) -> dict[str, list[ControlRow]]:
    """
    Make the runs that are not there yet, the contenders taking turns.

    :param directory: has runs that were made before, and gets the others
    :return: all runs of these contenders
    """
    log = RunLog(directory / ROWS, CONTROL_ROWS, 1)
    for repeat in range(repeats):
        for contender in entrants:
            if log.is_finished((contender.name, repeat)):
                continue
            controlled = with_little_steal(lambda: control(task, contender, repeat, n_ticks))  # noqa: B023
            save_samples(controlled, samples_path(directory, contender.name, repeat))
            log.add(control_row(contender.name, repeat, task, controlled))
            print(f"[{repeat + 1}/{repeats}] {contender.name}: {controlled.seconds:.0f} s", file=sys.stderr)
    rows: dict[str, list[ControlRow]] = {contender.name: [] for contender in entrants}
    for (row,) in log.finished_runs():
        rows.setdefault(row.contender, []).append(row)
    return rows


def control_report(task: Task, bars: Bars | None, rows: Mapping[str, Sequence[ControlRow]]) -> str:
    """:return: a table with the median and the worst run of each contender, and one of the bars"""
    header = [
        f"{task.env_id}, {task.hz:g} Hz",
        "missed, %",
        "longest gap, ticks",
        "age p50, ms",
        "age p99, ms",
        "period p99, ms",
        "ratio of asked",
        "parked, s",
        "return",
        "plant late p99, ms",
        "steal, %",
    ]
    table = format_markdown_table(header, [_cells(name, runs) for name, runs in rows.items() if runs])
    scheduling = next((runs[0].scheduling for runs in rows.values() if runs), "")
    text = f"{table}\n\nMedian of the runs, and the worst in brackets. The plant's process: {scheduling}."
    ours = [name for name in (REALTIME, PACED) if rows.get(name)] if bars is not None else []
    for name in ours:
        assert bars is not None
        checked = [[label, bar, value, "yes" if holds else "NO"] for label, bar, value, holds in bars.of(rows[name])]
        text += f"\n\n{format_markdown_table([name, 'bar', 'median', 'holds'], checked)}"
    return text


def _cells(name: str, runs: Sequence[ControlRow]) -> list[str]:
    def cell(value: Callable[[ControlRow], float], decimals: int, lower_is_worse: bool = False) -> str:
        values = [value(row) for row in runs]
        worst = min(values) if lower_is_worse else max(values)
        return f"{format_number(median(values), decimals)} ({format_number(worst, decimals)})"

    return [
        name,
        cell(lambda row: 100 * row.missed, 2),
        cell(lambda row: row.longest_gap, 0),
        cell(lambda row: row.age_p50, 2),
        cell(lambda row: row.age_p99, 2),
        cell(lambda row: row.period_p99, 2),
        cell(lambda row: row.ratio_of_asked, 2, lower_is_worse=True),
        cell(lambda row: row.parked, 1),
        cell(lambda row: row.last_return, 0, lower_is_worse=True),
        cell(lambda row: row.lateness_p99, 2),
        cell(lambda row: 100 * row.steal, 1),
    ]
