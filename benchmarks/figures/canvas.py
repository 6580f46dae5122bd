"""What all the figures have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.figures.figures_tables import SamplersRow, Spread
from benchmarks.plot_style import BLUE, GREY, VERMILLION, tidy

WIDTH, HEIGHT = 5.5, 4.2


class Canvas:
    """
    A figure with a panel for each workload, side by side.

    :param workloads: names of the workloads
    :param share_y: whether all panels have the same vertical axis
    """

    def __init__(self, workloads: Sequence[str], share_y: bool = True) -> None:
        self.figure = Figure(figsize=(WIDTH * len(workloads), HEIGHT), layout="constrained")
        FigureCanvasAgg(self.figure)
        axes = self.figure.subplots(1, len(workloads), sharey=share_y, squeeze=False)[0]
        #: the panels by the names of the workloads
        self.panels: Mapping[str, Axes] = dict(zip(workloads, axes, strict=True))
        for workload, panel in self.panels.items():
            panel.set_title(workload, loc="left")
            tidy(panel)

    @property
    def first(self) -> Axes:
        """The panel on the left."""
        return next(iter(self.panels.values()))

    def save(self, image: Path) -> None:
        self.first.legend(framealpha=0.8, edgecolor="none")
        self.figure.savefig(image, dpi=150)


def draw_spreads(axes: Axes, numbers: Sequence[int], spreads: Sequence[Spread], label: str) -> None:
    """
    Draw measured values: a line through the medians, and bars from the lowest to the highest.

    :param numbers: numbers of samplers
    :param spreads: the values
    :param label: what the legend says
    """
    medians, lows, highs = np.array([(each.median, each.low, each.high) for each in spreads]).T
    errors = [medians - lows, highs - medians]
    axes.errorbar(numbers, medians, errors, color=BLUE, marker="o", capsize=3, linewidth=2, label=label)


def draw_reported(axes: Axes, rows: Sequence[SamplersRow], values: Sequence[float]) -> None:
    """
    Draw what the report measured.

    :param rows: numbers of samplers
    :param values: a value for each, NaN where there is none
    """
    known = [(row.n_samplers, value) for row, value in zip(rows, values, strict=True) if not np.isnan(value)]
    if known:
        numbers, reported = zip(*known, strict=True)
        (line,) = axes.plot(numbers, reported, color=VERMILLION, linestyle="--", marker="s", label="WALL-E report")
        line.set_markerfacecolor("none")


def mark_cpus(axes: Axes, n_cpus: int, highest: int) -> None:
    """
    Mark how many samplers can work at the same time.

    :param axes: where numbers of samplers are drawn from left to right
    :param highest: the highest number of samplers
    """
    if n_cpus <= highest:
        axes.axvline(n_cpus, color=GREY, linestyle=":", linewidth=1.5)
        name = f" {n_cpus} CPU" if n_cpus == 1 else f" {n_cpus} CPUs"
        axes.text(n_cpus, 0.98, name, transform=axes.get_xaxis_transform(), color=GREY, va="top")


def number_ticks(axes: Axes, numbers: Sequence[int]) -> None:
    """
    Label the numbers that were measured, and no others.

    :param axes: where numbers of samplers are drawn from left to right, evenly or on a logarithmic scale
    """
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("Samplers, N")


def plain_numbers(axes: Axes) -> None:
    """
    Write 0.1 and 10 rather than powers of ten.

    :param axes: whose vertical axis is logarithmic
    """
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    axes.yaxis.set_major_formatter(formatter)
