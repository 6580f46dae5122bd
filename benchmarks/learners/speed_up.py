"""How much faster several learners are: a table, and a picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from benchmarks.learners.update_times import UpdateTime
from benchmarks.plot_style import BLUE, GREEN, GREY, ORANGE, VERMILLION, tidy
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle.cli.tables import format_ratio

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE)
# More labels than these run into each other.
MOST_LABELS = 8


def updates_table(runs: Sequence[Sequence[UpdateTime]]) -> str:
    """A row for each network and size of minibatches, and each number of learners."""
    titles = ["us/minibatch", "K", "1 learner", "1 learner, K threads", "K learners", "vs 1 thread", "vs K threads"]
    rows = []
    for run in runs:
        times = {(row.n_learners, row.n_threads): row.microseconds for row in run}
        one = times[1, 1]
        for k in _numbers_of_learners(run):
            threads, several = times[1, k], times[k, 1]
            ratios = format_ratio(one, several), format_ratio(threads, several)
            rows.append([_size(run), f"{k}", *map(format_number, (one, threads, several)), *ratios])
    return format_markdown_table(titles, rows)


def draw_speed_up(runs: Sequence[Sequence[UpdateTime]], image: Path) -> None:
    """A panel for each network: how many times as fast K learners are, and one with K threads."""
    by_net = [list(group) for _, group in groupby(sorted(runs, key=lambda run: run[0].net), lambda run: run[0].net)]
    figure = Figure(figsize=(3.6 * len(by_net) + 0.8, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(by_net), sharex=True, sharey=True, squeeze=False)[0]
    for axes, of_net in zip(panels, by_net, strict=True):
        _draw_net(axes, of_net)
    panels[0].set_ylabel("times as fast as one learner with one thread")
    figure.savefig(image, dpi=150)


def _draw_net(axes: Axes, runs: Sequence[Sequence[UpdateTime]]) -> None:
    numbers = sorted({1, *(k for run in runs for k in _numbers_of_learners(run))})
    axes.plot(numbers, numbers, color="black", linestyle=(0, (5, 2)), linewidth=1, label="ideal")
    for run, colour in zip(sorted(runs, key=lambda run: run[0].batch_size), COLOURS, strict=False):
        times = {(row.n_learners, row.n_threads): row.microseconds for row in run}
        ks = [1, *_numbers_of_learners(run)]
        learners, threads = ([times[1, 1] / times[kind] for kind in kinds] for kinds in _kinds(ks))
        axes.plot(ks, learners, "o-", color=colour, label=f"minibatches of {run[0].batch_size}")
        axes.plot(ks, threads, "x:", color=colour, linewidth=1)
    axes.plot([], [], "x:", color=GREY, linewidth=1, label="one learner, K threads")
    axes.set_title(runs[0][0].net)
    axes.set_xlabel("learners K")
    shown = numbers[:: -(-len(numbers) // MOST_LABELS)]
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        # From 1 to 64 as well as from 1 to 2, and the ideal is a straight line.
        set_scale("log", base=2)
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_major_locator(FixedLocator(_steps_up_to(numbers[-1])))
    axes.legend(fontsize="small", loc="upper left")
    tidy(axes)


def _steps_up_to(last: int) -> list[float]:
    """Where a scale from 1 to some number has labels."""
    if last <= 4:
        return [0.5, 0.75, *(1 + 0.25 * n for n in range(4 * last))]
    return [2.0**n for n in range(-1, last.bit_length() + 1)]


def _kinds(ks: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return [(k, 1) for k in ks], [(1, k) for k in ks]


def _numbers_of_learners(run: Sequence[UpdateTime]) -> list[int]:
    return sorted({row.n_learners for row in run} - {1})


def _size(run: Sequence[UpdateTime]) -> str:
    return f"{run[0].net}, minibatches of {run[0].batch_size}"
