"""What a comparison of returns looks like as text: a table in Markdown, and what it says."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.machine import Machine
from benchmarks.returns.returns_settings import FINAL_PART, ReturnsSettings
from benchmarks.returns.seed_noise import CONFIDENCE, Difference, compare_means
from benchmarks.text_tables import format_markdown_table
from sb3_walle.cli.tables import MISSING, format_ratio
from sb3_walle.cli.training import plural

SIGNIFICANT_DIGITS = 4
TIME = "Minutes: medians, from the constructor to the last step, of runs that took place one after the other."


def final_returns(curves: np.ndarray) -> np.ndarray:
    """
    The mean over the last fifth of the steps. Bins of equally many steps count equally; those without an episode do not
    count.

    :param curves: mean returns of the bins of each run, ``[n_seeds, n_bins]``, NaN where no episode ended
    :return: one value for each run in which an episode ended there
    """
    last = curves[:, -(curves.shape[1] // FINAL_PART) :]
    return np.array([np.nanmean(bins) for bins in last if not np.isnan(bins).all()])


def decimals_for(values: Sequence[float]) -> int:
    """
    :param values: numbers to compare
    :return: digits after the point with which the largest of them has four significant ones
    """
    largest = max((abs(value) for value in values), default=0.0)
    return max(0, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest))) if largest else 0


def format_mean(values: np.ndarray) -> str:
    """
    :param values: some numbers
    :return: their mean
    """
    return f"{np.mean(values):,.{decimals_for([np.mean(values)])}f}" if len(values) else MISSING


def returns_table(finals: Mapping[str, np.ndarray], differences: Mapping[str, Difference | None]) -> str:
    """
    Final returns, and how they compare.

    :param finals: the final returns of each contender's seeds
    :param differences: by how much contenders exceed the reference, as far as that is known
    """
    decimals = decimals_for([abs(np.mean(values)) for values in finals.values() if len(values)])
    rows = []
    for name, values in finals.items():
        mean = f"{np.mean(values):,.{decimals}f}" if len(values) else MISSING
        deviation = f"{np.std(values, ddof=1):,.{decimals}f}" if len(values) > 1 else MISSING
        difference = differences.get(name)
        if difference is None:
            compared = [MISSING, MISSING]
        else:
            mean_difference, low, high = (
                f"{value:+,.{decimals}f}" for value in (difference.mean, difference.low, difference.high)
            )
            compared = [mean_difference, f"{low} to {high}"]
        rows.append([name, str(len(values)), mean, deviation, *compared])
    interval = f"{CONFIDENCE:.0%} interval"
    return format_markdown_table(["", "seeds", "final return", "between seeds", "difference", interval], rows)


def statement(name: str, reference: str, difference: Difference | None) -> str:
    """
    Judge a contender.

    :param reference: the contender that it is compared with
    :param difference: by how much it exceeds the reference, if that is known
    :return: a line
    """
    if difference is None:
        return f"{name}: not comparable with {reference} yet, which takes two seeds of each"
    if difference.verdict == "within":
        return f"{name}: within the seed noise of {reference}"
    return f"{name}: {difference.verdict} {reference}, beyond seed noise"


def explanation(settings: ReturnsSettings) -> str:
    """What the numbers of the table are."""
    bin_steps = settings.total_timesteps / settings.n_bins
    return (
        "Return: of training episodes, with rewards as the environment gives them. A bin of "
        f"{bin_steps:,.0f} steps counts as\nthe mean over the episodes that ended in it. "
        f"Final return: mean over the last {1 / FINAL_PART:.0%} of the steps. Between seeds:\nstandard deviation. "
        f"Difference: to {settings.trainees()[0].name}, at equal steps, with Welch's t-interval. It is\n"
        "beyond seed noise if the interval does not include 0; the interval tells how large a difference these seeds\n"
        "leave open."
    )


def format_settings(settings: ReturnsSettings) -> str:
    """
    What all contenders have in common.

    :param settings: what is compared
    :return: the lines, as a list in Markdown
    """
    normalized = "" if settings.normalize else "not "
    lines = [
        f"{settings.env_id}, {settings.total_timesteps:,} steps a run, {plural(settings.n_envs, 'environment')}",
        f"observations and rewards are {normalized}normalised",
        *settings.algorithm_in_words(),
    ]
    return "\n".join(f"- {line}" for line in lines)


def format_machine(machine: Machine) -> str:
    """
    Where the runs took place.

    :param machine: the machine
    :return: the lines, as a list in Markdown
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"- {machine.n_cpus} CPUs ({machine.processor}), {machine.system}, {machine.date}\n- {versions}"


def time_table(seconds: Mapping[str, np.ndarray], reference: str) -> str:
    """
    How long runs took.

    :param seconds: of each contender, how long its runs took until the end of each bin, ``[n_seeds, n_bins]``
    :param reference: the contender that the others are compared with
    """
    medians = {name: float(np.median(runs[:, -1])) for name, runs in seconds.items()}
    base = medians.get(reference)
    rows = []
    for name, runs in seconds.items():
        low, high = (f"{value / 60:,.2f}" for value in (runs[:, -1].min(), runs[:, -1].max()))
        rows.append([name, f"{medians[name] / 60:,.2f}", f"{low} to {high}", format_ratio(base, medians[name])])
    return format_markdown_table(["", "minutes a run", "fastest to slowest", "times as fast"], rows)


def format_report(
    settings: ReturnsSettings, curves: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray], machine: Machine
) -> str:
    """
    The report that the command prints.

    :param curves: mean returns of the bins of each contender's finished runs, ``[n_seeds, n_bins]``
    :param seconds: how long these runs took until the end of each bin, ``[n_seeds, n_bins]``
    """
    heading = f"{format_settings(settings)}\n{format_machine(machine)}"
    if not curves:
        return f"{heading}\n\nNo run has been finished.\n"
    finals = {name: final_returns(runs) for name, runs in curves.items()}
    reference = settings.trainees()[0].name
    others = [name for name in finals if name != reference]
    differences = {name: compare_means(finals[name], finals.get(reference, np.array([]))) for name in others}
    lines = [statement(name, reference, differences[name]) for name in others] + settings.conclusions(finals)
    statements = "\n".join(f"- {line}" for line in lines)
    table = returns_table(finals, differences)
    sections = [heading, table, statements, explanation(settings), time_table(seconds, reference), TIME]
    return "\n\n".join(filter(None, sections)) + "\n"
