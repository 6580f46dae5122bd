"""Figures 4 to 7 of the report: collection and learning in an iteration, by the number of samplers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from benchmarks.figures.canvas import (
    Canvas,
    draw_reported,
    draw_spreads,
    mark_cpus,
    number_ticks,
    plain_numbers,
)
from benchmarks.figures.figures_tables import SamplersRow, Spread, grouped
from benchmarks.plot_style import GREY

MEASURED = "measured"


def draw_collection_time(rows: Sequence[SamplersRow], n_cpus: int, image: Path) -> None:
    """Figure 4: how long collection takes."""
    canvas = by_samplers(
        rows, n_cpus, lambda row: row.collection_seconds, lambda row: row.report_collection_seconds, logarithmic=True
    )
    canvas.first.set_ylabel("Collection (seconds an iteration)")
    canvas.save(image)


def draw_speed_up(rows: Sequence[SamplersRow], n_cpus: int, image: Path) -> None:
    """Figure 5: how many times as fast as one sampler collection is."""
    canvas = by_samplers(rows, n_cpus, lambda row: row.speed_up, lambda row: row.report_speed_up)
    highest = max(row.n_samplers for row in rows)
    for panel in canvas.panels.values():
        panel.plot([0, highest], [0, highest], color=GREY, linewidth=1, label="ideal: N", zorder=0)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
    canvas.first.set_ylabel("Speed-up of collection over one sampler")
    canvas.save(image)


def draw_shares(rows: Sequence[SamplersRow], n_cpus: int, image: Path) -> None:
    """
    Figure 6: which share of an iteration is learning, if samplers and learner work in turn. The rest is collection.
    """
    canvas = by_samplers(rows, n_cpus, lambda row: row.learning_share, lambda row: row.report_learning_share)
    for panel in canvas.panels.values():
        panel.set_ylim(0, 1)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        for height, text, side in ((0.97, "above the line: collection", "top"), (0.03, "below: learning", "bottom")):
            panel.text(0.98, height, text, transform=panel.transAxes, color=GREY, ha="right", va=side)
    canvas.first.set_ylabel("Learning (share of an iteration)")
    canvas.save(image)


def draw_learning_time(rows: Sequence[SamplersRow], n_cpus: int, image: Path) -> None:
    """Figure 7: how long learning takes."""
    canvas = by_samplers(rows, n_cpus, lambda row: row.learning_seconds, lambda row: row.report_learning_seconds)
    for panel in canvas.panels.values():
        panel.set_ylim(bottom=0)
    canvas.first.set_ylabel("Learning (seconds an iteration)")
    canvas.save(image)


def by_samplers(
    rows: Sequence[SamplersRow],
    n_cpus: int,
    measured: Callable[[SamplersRow], Spread],
    reported: Callable[[SamplersRow], float],
    logarithmic: bool = False,
) -> Canvas:
    """
    Draw something by the number of samplers, beside what the report measured.

    :param measured: what is drawn of a row
    :param reported: what the report has of it
    :param logarithmic: whether both axes are
    """
    by_workload = grouped((row.workload, row) for row in rows)
    canvas = Canvas(list(by_workload))
    for index, (workload, of_workload) in enumerate(by_workload.items()):
        panel, numbers = canvas.panels[workload], [row.n_samplers for row in of_workload]
        if logarithmic:
            use_logarithms(panel)
        draw_spreads(panel, numbers, [measured(row) for row in of_workload], MEASURED)
        draw_reported(panel, of_workload, [reported(row) for row in of_workload])
        if index == 0:
            # Samplers that wait most of the time are not bounded by CPUs.
            mark_cpus(panel, n_cpus, max(numbers))
        number_ticks(panel, numbers)
    return canvas


def use_logarithms(axes: Axes) -> None:
    """
    :param axes: both of whose axes become logarithmic
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_numbers(axes)
