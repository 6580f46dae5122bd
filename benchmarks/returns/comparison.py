"""Our return against that of SB3 at equal steps: who trains, in which order, and what is kept of it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from tqdm import tqdm

from benchmarks.machine import describe_machine
from benchmarks.results_directory import open_results
from benchmarks.returns.recorded_training import train_once
from benchmarks.returns.returns_log import BinReturn, ReturnsLog
from benchmarks.returns.returns_plot import plot_learning_curves, plot_returns
from benchmarks.returns.returns_report import final_returns, format_mean, format_report, format_settings
from benchmarks.returns.returns_settings import FINAL_PART, ReturnsSettings
from sb3_walle.cli.arguments import INTERRUPTED, UsageError
from sb3_walle.cli.environments import check_environment
from sb3_walle.cli.training import create_run_directory

RETURNS = "returns.csv"
REPORT = "report.md"
FIGURE = "returns.png"
LEARNING_CURVES = "learning_curves.png"


@dataclass(frozen=True)
class ReturnsOutcome:
    """
    How a comparison ended.

    :param directory: where its results are
    :param report: what they say about all runs that have been finished
    :param interrupted: whether Ctrl-C ended it before all were
    """

    directory: Path
    report: str
    interrupted: bool


def compare_returns(settings: ReturnsSettings, out: Path | None = None) -> ReturnsOutcome:
    """
    Train every contender with every seed, and say on stderr how far it is.

    Rows of the results are written as they come, report and figure after each run. Runs that have been finished before
    are not repeated.

    :param out: directory for the results, which may have some of the same comparison; None for a new one
    :raises UsageError: if the settings make no sense, or the directory has results of something else
    """
    env = check_settings(settings)
    directory = create_run_directory(Path("runs"), f"returns-{settings.env_id}") if out is None else out
    open_results(directory, settings.describe(), RETURNS)
    log = ReturnsLog(directory / RETURNS, settings.n_bins)
    machine = describe_machine()

    def save_report() -> str:
        report = format_report(settings, log.curves(), log.seconds(), machine)
        figures = f"![Returns]({FIGURE})\n\n![Learning curves]({LEARNING_CURVES})\n"
        (directory / REPORT).write_text(f"# Returns on {settings.env_id}\n\n{report}\n{figures}")
        plot_returns(settings, log.curves(), directory / FIGURE)
        plot_learning_curves(settings, log.curves(), log.seconds(), directory / LEARNING_CURVES)
        return report

    print(introduction(settings, env, directory), file=sys.stderr)
    interrupted = False
    try:
        train_all(settings, log, save_report)
    except KeyboardInterrupt:
        interrupted = True
    return ReturnsOutcome(directory, save_report(), interrupted)


def show_outcome(outcome: ReturnsOutcome) -> int:
    """
    Print how a comparison ended.

    :return: exit code of the command
    """
    print(outcome.report)
    print(f"Returns, report and figures are in\n  {outcome.directory}")
    if outcome.interrupted:
        print(f"Interrupted: the same command with '--out {outcome.directory}' continues")
    return INTERRUPTED if outcome.interrupted else 0


def train_all(settings: ReturnsSettings, log: ReturnsLog, on_run_end: Callable[[], object]) -> None:
    """
    Make the runs that are missing, seed by seed: wherever it ends, the contenders have been treated alike.

    :param log: the rows that there are, and where to add those that come
    :param on_run_end: called after each run
    """
    runs = [(seed, trainee) for seed in range(settings.n_seeds) for trainee in settings.trainees()]
    left = [(seed, trainee) for seed, trainee in runs if not log.is_finished((seed, trainee.name))]
    done = len(runs) - len(left)
    if done:
        print(f"{done} of {len(runs)} runs have been finished before", file=sys.stderr)
    steps = settings.total_timesteps
    # Where there is no terminal, there is no bar, but still a line a run.
    with tqdm(total=len(runs) * steps, initial=done * steps, unit="step", unit_scale=True, disable=None) as bar:

        def on_row(row: BinReturn) -> None:
            log.add(row)
            bar.update(row.timesteps - bar.n % steps)

        for number, (seed, trainee) in enumerate(left, done + 1):
            name = f"seed {seed}: {trainee.name}"
            bar.set_description(name)
            start = time.perf_counter()
            rows = train_once(trainee, settings, seed, on_row)
            seconds = time.perf_counter() - start
            final = format_mean(final_returns(np.array([[row.mean_return for row in rows]])))
            text = f"[{number}/{len(runs)}] {name}: final return {final}, {seconds:,.0f} s"
            tqdm.write(text, file=sys.stderr)
            on_run_end()


def check_settings(settings: ReturnsSettings) -> gym.Env:
    """
    Refuse what cannot be compared, before anything is trained.

    :return: the closed environment
    :raises UsageError: if the settings make no sense
    """
    env = check_environment(settings.env_id)
    if isinstance(env.observation_space, spaces.Dict):
        raise UsageError(f"'{settings.env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    if settings.n_bins < 1 or settings.n_bins % FINAL_PART:
        raise UsageError(f"the number of bins must be a multiple of {FINAL_PART}, got {settings.n_bins}")
    if settings.total_timesteps < settings.n_bins * settings.n_envs:
        raise UsageError(
            f"{settings.total_timesteps} timesteps are too few for {settings.n_bins} bins in which each of "
            f"{settings.n_envs} environments takes a step: at least {settings.n_bins * settings.n_envs} are needed"
        )
    for trainee in settings.trainees():
        with trainee.running(settings.env_id):
            pass
    return env


def introduction(settings: ReturnsSettings, env: gym.Env, directory: Path) -> str:
    """
    What is about to be done.

    :param directory: where the results go
    """
    names = ", ".join(f"'{trainee.name}'" for trainee in settings.trainees())
    lines = [
        f"Comparing the returns of {names}, seeds 0 to {settings.n_seeds - 1}",
        format_settings(settings),
        f"- results go to {directory}",
    ]
    longest = settings.n_envs * ((env.spec and env.spec.max_episode_steps) or 0)
    if longest > settings.total_timesteps // FINAL_PART:
        lines.append(
            f"- {settings.n_envs} episodes side by side may take {longest:,} steps. A run in whose last "
            f"{settings.total_timesteps // FINAL_PART:,} steps none ends has no final return"
        )
    return "\n".join(lines)
