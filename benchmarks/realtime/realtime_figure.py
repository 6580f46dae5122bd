"""The figure of control: how old actions are when they arrive, and how many ticks pass without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.plot_style import BLUE, GREEN, GREY, ORANGE, VERMILLION, Style, tidy
from benchmarks.realtime.control_rows import ControlRow, samples_path
from benchmarks.realtime.realtime_contenders import ASKED, EPISODES, FITTING, PACED, REALTIME, SYNC, Task

STYLES: dict[str, Style] = {
    REALTIME: (BLUE, "-"),
    PACED: (GREEN, (0, (5, 1, 1, 1))),
    SYNC: (ORANGE, (0, (3, 1))),
    FITTING: ("black", (0, (5, 2))),
    ASKED: (VERMILLION, (0, (1, 1))),
    EPISODES: (GREY, (0, (3, 1, 1, 1, 1, 1))),
}


def draw_control(task: Task, rows: Mapping[str, Sequence[ControlRow]], directory: Path, image: Path) -> None:
    """
    Draw the ages of all actions, and the missed ticks beside them.

    :param directory: has what the runs have left
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_age, by_miss = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [name for name, runs in rows.items() if runs]
    for name in names:
        draw_ages(by_age, name, rows[name], directory)
    by_age.axvline(1e3 * task.period, color="black", linewidth=0.8)
    by_age.annotate(
        " one period", (1e3 * task.period, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small"
    )
    by_age.set_xscale("log")
    by_age.set_yscale("log")
    by_age.set_ylim(1e-4, 1)
    by_age.set_xlabel("Age of an action when it arrives at the plant (ms)")
    by_age.set_ylabel("Share of actions that are older")
    draw_missed(by_miss, names, rows)
    for axes in (by_age, by_miss):
        tidy(axes)
    handles, labels = by_age.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", edgecolor="none")
    figure.suptitle(
        f"{task.env_id} at {task.hz:g} Hz, {task.gradient_steps} gradient step(s) for {task.train_freq} step(s)"
    )
    figure.savefig(image, dpi=150)


def draw_ages(axes: Axes, name: str, runs: Sequence[ControlRow], directory: Path) -> None:
    ages = []
    for row in runs:
        with np.load(samples_path(directory, name, row.repeat)) as samples:
            ages.append(samples["ages"])
    together = np.sort(np.concatenate(ages))
    together = 1e3 * together[~np.isnan(together)]
    colour, line = STYLES[name]
    axes.plot(together, 1 - np.arange(len(together)) / len(together), color=colour, linestyle=line, label=name)


def draw_missed(axes: Axes, names: Sequence[str], rows: Mapping[str, Sequence[ControlRow]]) -> None:
    shares = [100 * median(row.missed for row in rows[name]) for name in names]
    positions = range(len(names))
    axes.barh(positions, shares, color=[STYLES[name][0] for name in names])
    for position, (name, share) in enumerate(zip(names, shares, strict=True)):
        gap = max(row.longest_gap for row in rows[name])
        axes.annotate(f" {share:.2f} %, longest gap {gap}", (share, position), va="center", fontsize="small")
    axes.set_yticks(positions, names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.8 * max(*shares, 1))
    axes.set_xlabel("Ticks without a fresh action (%)")
