"""Measuring and training what figures need, and drawing them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gymnasium import spaces
from tqdm import tqdm

from benchmarks.contenders import Trainee
from benchmarks.figures.draw_iterations import (
    draw_collection_time,
    draw_learning_time,
    draw_shares,
    draw_speed_up,
)
from benchmarks.figures.draw_overlap import draw_overlap
from benchmarks.figures.draw_returns import draw_returns_by_steps, draw_returns_by_time
from benchmarks.figures.figures_report import format_report
from benchmarks.figures.figures_settings import FiguresSettings
from benchmarks.figures.figures_tables import overlap_table, returns_table, samplers_table, save_table
from benchmarks.figures.iteration_time import ITERATION_TIMES, IterationTime, Timing
from benchmarks.figures.plan import contenders, returns_settings, timings, trainings
from benchmarks.machine import describe_machine
from benchmarks.results_directory import open_results
from benchmarks.returns.recorded_training import train_once
from benchmarks.returns.returns_log import BinReturn, ReturnsLog
from benchmarks.run_log import RunLog
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.environments import check_environment

ITERATIONS, RETURNS, REPORT = "iterations.csv", "returns.csv", "report.md"


@dataclass(frozen=True)
class FiguresOutcome:
    """
    How it ended.

    :param report: what the figures show, in numbers
    :param images: the figures
    :param interrupted: whether Ctrl-C ended it before all was done
    """

    report: str
    images: tuple[Path, ...]
    interrupted: bool


class Results:
    """
    What has been measured and trained, in files from which the work can continue.

    :param settings: what figures are asked for
    :param directory: where the files are
    :raises UsageError: if the directory has results of something else
    """

    def __init__(self, settings: FiguresSettings, directory: Path) -> None:
        open_results(directory, settings.describe(), ITERATIONS)
        self.directory = directory
        self.iterations: RunLog[IterationTime] = RunLog(directory / ITERATIONS, ITERATION_TIMES, settings.iterations)
        self.returns = ReturnsLog(directory / RETURNS, settings.n_bins)


def make_figures(settings: FiguresSettings, directory: Path) -> FiguresOutcome:
    """
    Measure and train what is not there yet, with a progress bar on stderr, and draw the figures. Ctrl-C ends it
    early, with figures of what there is.

    :param directory: where they go, with all that they are made of
    :raises UsageError: if the settings make no sense, or the directory has results of something else
    """
    check_settings(settings)
    results = Results(settings, directory)
    interrupted = False
    try:
        do_what_is_left(settings, results)
    except KeyboardInterrupt:
        interrupted = True
    report, images = write_figures(settings, results)
    return FiguresOutcome(report, images, interrupted)


def do_what_is_left(settings: FiguresSettings, results: Results) -> None:
    """
    Measure and train.

    :param results: what there is already, and where to add the rest
    """
    all_timings, all_trainings = list(timings(settings)), list(trainings(settings))
    timings_left = [timing for timing in all_timings if not results.iterations.is_finished(timing.run)]
    trainings_left = [
        (seed, trainee) for seed, trainee in all_trainings if not results.returns.is_finished((seed, trainee.name))
    ]
    total = sum(timing.n_timesteps(settings) for timing in all_timings) + len(all_trainings) * settings.timesteps
    left = sum(timing.n_timesteps(settings) for timing in timings_left) + len(trainings_left) * settings.timesteps
    if left < total:
        print(f"{1 - left / total:.0%} of the steps have been done before", file=sys.stderr)
    # Where there is no terminal, there is no bar, but still a line for each run.
    with tqdm(total=total, initial=total - left, unit="step", unit_scale=True, disable=None) as bar:
        for timing in timings_left:
            announce(bar, describe(timing))
            measure(timing, settings, results, bar.update)
        for seed, trainee in trainings_left:
            announce(bar, f"training, {trainee.name}, seed {seed}")
            train(seed, trainee, settings, results, bar.update)
            # What comes takes long: until then these are the figures.
            write_figures(settings, results)


def describe(timing: Timing) -> str:
    """
    :param timing: a measurement
    :return: what it is of
    """
    mode = f", {timing.mode}" if timing.contender.name.startswith("AsyncPPO") else ""
    return f"iterations, {timing.workload.name}, {timing.contender.name}{mode}, repeat {timing.repeat}"


def announce(bar: tqdm, what: str) -> None:
    """
    :param bar: the progress bar
    :param what: what is being done from now on
    """
    bar.set_description(what)
    if bar.disable:
        print(what, file=sys.stderr)


def measure(timing: Timing, settings: FiguresSettings, results: Results, on_steps: Callable[[int], object]) -> None:
    """
    Make a measurement and add it to the results.

    :param timing: the measurement
    :param results: where to add it
    :param on_steps: called with the number of steps that were taken
    """
    for row in timing.measure(settings):
        results.iterations.add(row)
    on_steps(timing.n_timesteps(settings))


def train(
    seed: int, trainee: Trainee, settings: FiguresSettings, results: Results, on_steps: Callable[[int], object]
) -> None:
    """
    Train, and add the returns to the results.

    :param settings: for how long
    :param results: where to add the returns
    :param on_steps: called with the number of steps of each bin when it is complete
    """
    done = 0

    def on_row(row: BinReturn) -> None:
        nonlocal done
        results.returns.add(row)
        on_steps(row.timesteps - done)
        done = row.timesteps

    train_once(trainee, returns_settings(settings), seed, on_row)


def write_figures(settings: FiguresSettings, results: Results) -> tuple[str, tuple[Path, ...]]:
    """
    Draw all figures of which there are results, with a table beside each, and the report.

    :param results: the results
    :return: the report, and the images
    """
    times = [row for rows in results.iterations.finished_runs() for row in rows]
    by_samplers = samplers_table(times)
    overlap = overlap_table(times, settings.overlap_n_samplers)
    returns = returns_table(settings, results.returns.curves(), results.returns.seconds())
    machine = describe_machine()
    images = []

    def write(name: str, rows: list, draw: Callable[..., None], *arguments: int) -> None:
        if rows:
            save_table(results.directory / f"{name}.csv", rows)
            images.append(results.directory / f"{name}.png")
            draw(rows, *arguments, images[-1])

    write("figure_3_return_by_time", returns, draw_returns_by_time)
    write("figure_4_collection_time", by_samplers, draw_collection_time, machine.n_cpus)
    write("figure_5_speed_up", by_samplers, draw_speed_up, machine.n_cpus)
    write("figure_6_shares", by_samplers, draw_shares, machine.n_cpus)
    write("figure_7_learning_time", by_samplers, draw_learning_time, machine.n_cpus)
    write("return_by_steps", returns, draw_returns_by_steps)
    write("overlap", overlap, draw_overlap)
    report = format_report(settings, by_samplers, overlap, returns, machine)
    (results.directory / REPORT).write_text(report)
    return report, tuple(images)


def check_settings(settings: FiguresSettings) -> None:
    """
    Refuse what cannot be measured, before anything is.

    :raises UsageError: if the settings make no sense
    """
    if isinstance(check_environment(settings.env_id).observation_space, spaces.Dict):
        raise UsageError(f"'{settings.env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    most = max(
        *(contender.n_envs for workload in settings.workloads for contender, _ in contenders(settings, workload)),
        *settings.learning_n_samplers,
    )
    if settings.samples_per_iteration < 2 * most:
        raise UsageError(
            f"{settings.samples_per_iteration} samples an iteration are too few for {most} samplers: at least "
            f"{2 * most} are needed"
        )
    if settings.timesteps < settings.n_bins * most:
        raise UsageError(
            f"{settings.timesteps} timesteps are too few for {settings.n_bins} bins in which each of {most} samplers "
            f"takes a step: at least {settings.n_bins * most} are needed"
        )
