"""The figures of a comparison of returns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.plot_style import STYLES, Style, tidy
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.training import plural

#: the line in the middle, and where the band around it begins and ends
Band: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def plot_returns(settings: ReturnsSettings, curves: Mapping[str, np.ndarray], image: Path) -> None:
    """
    Plot returns against steps: a line for the mean over seeds, and a band for the standard deviation between them.

    :param curves: mean returns of the bins of each contender's finished runs, ``[n_seeds, n_bins]``, NaN where no
        episode ended
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # An episode is part of the bin in which it ended.
    ends = np.array(settings.bin_ends)
    for (name, runs), style in zip(curves.items(), STYLES, strict=False):
        draw_returns(axes, ends, runs, mean_and_deviation, label_of(name, runs), style)
    label_timesteps(axes, settings)
    label_returns(axes, settings)
    axes.set_title("lines: mean of the seeds, bands: standard deviation", loc="right", fontsize="medium")
    if curves:
        axes.legend(framealpha=0.8, edgecolor="none")
    figure.savefig(image, dpi=150)


def plot_learning_curves(
    settings: ReturnsSettings, curves: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray], image: Path
) -> None:
    """
    Plot returns against steps, and beside them against minutes: a line for the median of the seeds, and a band from the
    worst to the best.

    :param curves: mean returns of the bins of each contender's finished runs, ``[n_seeds, n_bins]``, NaN where no
        episode ended
    :param seconds: how long these runs took until the end of each bin, ``[n_seeds, n_bins]``
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    by_timesteps, by_minutes = figure.subplots(1, 2, sharey=True)
    ends = np.array(settings.bin_ends)
    for (name, runs), style in zip(curves.items(), STYLES, strict=False):
        minutes = np.median(seconds[name], axis=0) / 60
        draw_returns(by_timesteps, ends, runs, median_and_range, label_of(name, runs), style)
        draw_returns(by_minutes, minutes, runs, median_and_range, label_of(name, runs), style)
    label_timesteps(by_timesteps, settings)
    label_returns(by_timesteps, settings)
    by_minutes.set_xlim(left=0)
    by_minutes.set_xlabel("Minutes since the start (median of the seeds)")
    by_minutes.set_title("lines: median of the seeds, bands: their range", loc="right", fontsize="medium")
    tidy(by_minutes)
    if curves:
        by_timesteps.legend(framealpha=0.8, edgecolor="none")
    figure.savefig(image, dpi=150)


def label_of(name: str, runs: np.ndarray) -> str:
    """
    :param runs: its runs, ``[n_seeds, n_bins]``
    :return: what the legend says
    """
    return f"{name} ({plural(len(runs), 'seed')})"


def label_timesteps(axes: Axes, settings: ReturnsSettings) -> None:
    """:param axes: where steps are drawn from left to right"""
    axes.set_xlim(0, settings.total_timesteps)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(f"Timesteps (environment steps, {plural(settings.n_envs, 'environment')} together)")


def label_returns(axes: Axes, settings: ReturnsSettings) -> None:
    """:param axes: where returns are drawn from the bottom to the top"""
    bin_steps = settings.total_timesteps / settings.n_bins
    axes.set_ylabel(f"Mean episode return (sum of rewards)\nin bins of {bin_steps:,.0f} steps")
    normalized = "normalised" if settings.normalize else "not normalised"
    axes.set_title(f"{settings.env_id}, {normalized}", loc="left")
    tidy(axes)


def mean_and_deviation(known: np.ma.MaskedArray) -> Band:
    """
    :param known: returns, ``[n_seeds, n_bins]``, in each bin at least one
    :return: their mean, and where one standard deviation below and above it is
    """
    mean = np.ma.getdata(known.mean(axis=0))
    # One run alone has no deviation.
    deviation = np.ma.filled(known.std(axis=0, ddof=1), 0) if len(known) > 1 else np.zeros_like(mean)
    return mean, mean - deviation, mean + deviation


def median_and_range(known: np.ma.MaskedArray) -> Band:
    """
    :param known: returns, ``[n_seeds, n_bins]``, in each bin at least one
    :return: their median, the lowest and the highest
    """
    median, low, high = (np.ma.getdata(values) for values in (np.ma.median(known, axis=0), known.min(0), known.max(0)))
    return median, low, high


def draw_returns(
    axes: Axes, x: np.ndarray, runs: np.ndarray, band: Callable[[np.ma.MaskedArray], Band], label: str, style: Style
) -> None:
    """
    Draw one contender.

    :param x: where the bins end, ``[n_bins]``
    :param runs: mean returns of the bins, ``[n_seeds, n_bins]``, NaN where no episode ended
    :param band: what to draw of them
    :param label: what the legend says
    :param style: colour, and style of the line
    """
    # Where episodes are long and bins short, some bins are without an episode, in some runs or in all.
    drawn = ~np.isnan(runs).all(axis=0)
    x, known = x[drawn], np.ma.masked_invalid(runs[:, drawn])
    middle, low, high = band(known)
    color, dashes = style
    axes.plot(x, middle, label=label, color=color, linestyle=dashes, linewidth=2, marker="o" if len(x) < 2 else None)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
