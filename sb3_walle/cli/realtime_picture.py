"""How well a control loop kept time, as a picture. It uses no state of pyplot."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sb3_walle.realtime.histogram import Histogram
from sb3_walle.realtime.statistics import RealtimeStatistics

# Of the Okabe-Ito palette.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#666666"


def draw_realtime(statistics: RealtimeStatistics, title: str, image: Path) -> None:
    """
    Draw how often each period and each age of an action occurred, as PNG.

    :param title: what was trained
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    of_periods, of_ages = figure.subplots(1, 2)
    draw_histogram(of_periods, statistics.period_ms, "From one action to the next (ms)")
    draw_histogram(of_ages, statistics.action_age_ms, "From an observation to its action (ms)")
    of_periods.set_ylabel("Steps")
    if statistics.control_hz is not None:
        for axes in (of_periods, of_ages):
            draw_line(axes, 1e3 / statistics.control_hz, "one period", GREY, "-")
    missed = f", {statistics.missed:.2%} of {statistics.n_ticks:,} ticks missed" if statistics.n_ticks else ""
    figure.suptitle(f"{title}: {statistics.n_steps:,} steps{missed}")
    figure.savefig(image, dpi=150)


def draw_histogram(axes: Axes, histogram: Histogram, label: str) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    if histogram.n_values == 0:
        axes.text(0.5, 0.5, "There were too few steps", transform=axes.transAxes, ha="center", va="center")
        return
    edges, counts = histogram.edges, histogram.counts
    used = np.flatnonzero(counts)
    first, last = max(used[0] - 5, 0), min(used[-1] + 6, len(counts))
    axes.stairs(counts[first:last], edges[first : last + 1], fill=True, color=BLUE)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    # Within a power of ten, there may be no other numbers.
    axes.xaxis.set_minor_formatter("{x:g}" if edges[last] < 10 * edges[first] else NullFormatter())
    # A single late step among many thousands is to be seen, too.
    axes.set_yscale("log")
    axes.set_ylim(0.5, 3 * counts.max())
    axes.grid(alpha=0.3)
    high = histogram.quantile(0.99)
    draw_line(axes, high, f"p99: {high:.3g} ms", VERMILLION, (0, (5, 2)))
    axes.set_title(f"median {histogram.quantile(0.5):.3g} ms, largest {histogram.largest:.3g} ms", fontsize="medium")


def draw_line(axes: Axes, x: float, text: str, colour: str, style: Any) -> None:
    axes.axvline(x, color=colour, linestyle=style, linewidth=1, label=text)
    axes.legend(fontsize="small", framealpha=0.8, edgecolor="none")
