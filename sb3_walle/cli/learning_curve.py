"""The learning curve of a training run. It uses no state of pyplot, so that a caller's own figures stay as they are."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

# Of the Okabe-Ito palette.
BLUE = "#0072B2"


@dataclass(frozen=True)
class LearningCurve:
    """
    What ``progress.csv`` says about learning, a value an iteration in which an episode had ended before.

    :param timesteps: environment steps, all environments together
    :param minutes: minutes since training began
    :param rewards: mean episode reward, over the last 100 episodes unless ``stats_window_size`` says otherwise
    """

    timesteps: np.ndarray
    minutes: np.ndarray
    rewards: np.ndarray


def read_learning_curve(progress: Path) -> LearningCurve:
    """:return: the learning curve in the ``progress.csv`` of SB3's logger, empty if no episode has ended"""
    with progress.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("rollout/ep_rew_mean")]
    timesteps = np.array([float(row["time/total_timesteps"]) for row in rows])
    # SB3 logs the time elapsed in whole seconds, too coarse for short runs; the rate has more digits.
    rates = np.array([float(row["time/fps"]) for row in rows])
    elapsed = np.array([float(row["time/time_elapsed"]) for row in rows])
    seconds = np.divide(timesteps, rates, out=elapsed, where=rates > 0)
    return LearningCurve(timesteps, seconds / 60, np.array([float(row["rollout/ep_rew_mean"]) for row in rows]))


def plot_learning_curve(progress: Path, image: Path) -> None:
    """Plot the mean episode reward against timesteps and against time, as PNG."""
    curve = read_learning_curve(progress)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    by_timesteps, by_time = figure.subplots(1, 2, sharey=True)
    draw_curve(by_timesteps, curve.timesteps, curve.rewards, "Timesteps (environment steps)")
    by_timesteps.set_ylabel("Mean reward of the last 100 episodes")
    by_timesteps.xaxis.set_major_formatter(EngFormatter(sep=""))
    draw_curve(by_time, curve.minutes, curve.rewards, "Time (minutes)")
    figure.suptitle(progress.parent.name)
    figure.savefig(image, dpi=150)


def draw_curve(axes: Axes, x: np.ndarray, rewards: np.ndarray, x_label: str) -> None:
    # A line needs two points: a shorter curve would be invisible.
    axes.plot(x, rewards, color=BLUE, linewidth=2, marker="o" if len(x) < 2 else None)
    if len(x) == 0:
        axes.text(0.5, 0.5, "No episode has ended", transform=axes.transAxes, ha="center", va="center")
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
