"""Figure 3 of the report: the return against time; and the return against steps."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.ticker import EngFormatter

from benchmarks.figures.canvas import Canvas
from benchmarks.figures.figures_tables import ReturnRow, grouped
from benchmarks.plot_style import STYLES


def draw_returns_by_time(rows: Sequence[ReturnRow], image: Path) -> None:
    """Figure 3: the return against time."""
    canvas = by_number(rows, lambda row: row.minutes.median)
    for panel in canvas.panels.values():
        panel.set_xlabel("Time (minutes)")
    canvas.save(image)


def draw_returns_by_steps(rows: Sequence[ReturnRow], image: Path) -> None:
    """The return against steps."""
    canvas = by_number(rows, lambda row: row.timesteps)
    for panel in canvas.panels.values():
        panel.set_xlabel("Timesteps (environment steps, all samplers together)")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    canvas.save(image)


def by_number(rows: Sequence[ReturnRow], across: Callable[[ReturnRow], float]) -> Canvas:
    """
    Draw a line for each number of samplers: the median of the seeds, and a band from the worst to the best.

    :param across: where a row is, from left to right
    """
    by_workload = grouped((row.workload, row) for row in rows)
    canvas = Canvas(list(by_workload))
    # The same number has the same colour in all panels.
    numbers = sorted({row.n_samplers for row in rows})
    styles = dict(zip(numbers, STYLES[1:] + STYLES[:1], strict=False))
    for workload, of_workload in by_workload.items():
        panel = canvas.panels[workload]
        for number, of_number in grouped((row.n_samplers, row) for row in of_workload).items():
            color, dashes = styles[number]
            x, returns = [across(row) for row in of_number], [row.mean_return for row in of_number]
            label = f"N={number}, {of_number[0].n_seeds} seeds" if of_number[0].n_seeds > 1 else f"N={number}"
            marker = "o" if len(x) < 2 else None
            medians = [each.median for each in returns]
            panel.plot(x, medians, color=color, linestyle=dashes, linewidth=2, marker=marker, label=label)
            lows, highs = [each.low for each in returns], [each.high for each in returns]
            panel.fill_between(x, lows, highs, color=color, alpha=0.15, linewidth=0)
        panel.set_xlim(left=0)
    canvas.first.set_ylabel("Mean episode return")
    return canvas
