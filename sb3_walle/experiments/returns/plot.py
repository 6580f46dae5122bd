"""The figure of a comparison of returns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sb3_walle.experiments.plots import BLUE
from sb3_walle.experiments.returns.training import ReturnsSettings
from sb3_walle.experiments.training import plural

# Colours of the Okabe-Ito palette, which are told apart with any kind of colour vision; dashes, in print as well.
STYLES = (("black", (0, (5, 2))), (BLUE, "-"), ("#D55E00", (0, (1, 1))), ("#009E73", (0, (5, 1, 1, 1))))


def plot_returns(settings: ReturnsSettings, curves: Mapping[str, np.ndarray], image: Path) -> None:
    """
    Plot returns against steps: a line for the mean over seeds, and a band for the standard deviation between them.

    :param settings: what was compared
    :param curves: mean returns of the bins of each contender's finished runs, ``[n_seeds, n_bins]``, NaN where no
        episode ended
    :param image: where to write the figure, as PNG
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # An episode is part of the bin in which it ended.
    ends = np.array(settings.bin_ends)
    for (name, runs), (color, dashes) in zip(curves.items(), STYLES, strict=False):
        draw_returns(axes, ends, runs, f"{name} ({plural(len(runs), 'seed')})", color, dashes)
    axes.set_xlim(0, settings.total_timesteps)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(f"Timesteps (environment steps, {settings.n_envs} environments together)")
    bin_steps = EngFormatter(sep="")(settings.total_timesteps / settings.n_bins)
    axes.set_ylabel(f"Mean episode return (sum of rewards)\nin bins of {bin_steps} steps")
    normalized = "normalised" if settings.normalize else "not normalised"
    axes.set_title(f"{settings.env_id}, {normalized}", loc="left")
    axes.set_title("lines: mean of the seeds, bands: standard deviation", loc="right", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(framealpha=0.8, edgecolor="none")
    figure.savefig(image, dpi=150)


def draw_returns(axes: Axes, timesteps: np.ndarray, runs: np.ndarray, label: str, color: str, dashes: Any) -> None:
    """
    Draw one contender.

    :param axes: where to draw
    :param timesteps: the last step of each bin
    :param runs: mean returns of the bins, ``[n_seeds, n_bins]``, NaN where no episode ended
    :param label: what the legend says
    :param color: colour of the line and the band
    :param dashes: style of the line
    """
    # Where episodes are long and bins short, some bins are without an episode, in some runs or in all.
    drawn = ~np.isnan(runs).all(axis=0)
    timesteps, known = timesteps[drawn], np.ma.masked_invalid(runs[:, drawn])
    mean = np.ma.getdata(known.mean(axis=0))
    # One run alone has no deviation.
    deviation = np.ma.filled(known.std(axis=0, ddof=1), 0) if len(runs) > 1 else np.zeros_like(mean)
    marker = "o" if len(mean) < 2 else None
    axes.plot(timesteps, mean, label=label, color=color, linestyle=dashes, linewidth=2, marker=marker)
    axes.fill_between(timesteps, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
