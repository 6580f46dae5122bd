"""What the figures show, in numbers."""

import math
from collections.abc import Sequence

from benchmarks.figures.figures_settings import FiguresSettings
from benchmarks.figures.figures_tables import OverlapRow, ReturnRow, SamplersRow, Spread, grouped
from benchmarks.machine import Machine
from benchmarks.returns.returns_report import format_machine
from benchmarks.text_tables import format_markdown_table

NOTHING = "Nothing has been measured yet.\n"
SAMPLERS_HEADER = ("N", "collection (s)", "speed-up", "report", "learning (s)", "learning share", "report")
OVERLAP_HEADER = ("", "iteration (s)", "learning (s)", "waiting for experience (s)", "samples a second")
RETURNS_HEADER = ("", "seeds", "final return", "minutes")
EXPLANATION = (
    "Medians, in brackets from the lowest to the highest. Collection and learning are of samplers that collect in\n"
    'turn with the learner (mode "sync"); "report" is what the WALL-E report measured on HalfCheetah-v2. The final\n'
    "return is that of the last bin of steps: median of the seeds, worst and best."
)


def format_report(
    settings: FiguresSettings,
    by_samplers: Sequence[SamplersRow],
    overlap: Sequence[OverlapRow],
    returns: Sequence[ReturnRow],
    machine: Machine,
) -> str:
    """
    :param by_samplers: iterations by the number of samplers
    :param overlap: iterations of all modes
    :param returns: returns of trainings
    """
    sections = [f"# Figures of {settings.env_id}", f"{format_settings(settings)}\n{format_machine(machine)}"]
    for workload, rows in grouped((row.workload, row) for row in by_samplers).items():
        sections.append(f"## Collection and learning: {workload}")
        sections.append(format_markdown_table(SAMPLERS_HEADER, [samplers_cells(row) for row in rows]))
    for workload, of_modes in grouped((row.workload, row) for row in overlap).items():
        sections.append(f"## From end to end: {workload}")
        samples = settings.n_steps(settings.overlap_n_samplers) * settings.overlap_n_samplers
        sections.append(format_markdown_table(OVERLAP_HEADER, [overlap_cells(row, samples) for row in of_modes]))
    if returns:
        sections.append("## Return")
        sections.append(format_markdown_table(RETURNS_HEADER, returns_cells(returns)))
    sections.append(EXPLANATION if by_samplers or returns else NOTHING)
    return "\n\n".join(sections) + "\n"


def format_settings(settings: FiguresSettings) -> str:
    """:return: the lines, as a list in Markdown"""
    arguments = {"objective": settings.agent.objective, **settings.agent.ppo}
    kwargs = arguments.pop("policy_kwargs", {})
    in_words = [f"{name}={getattr(value, '__name__', value)}" for name, value in {**arguments, **kwargs}.items()]
    return (
        f"- {settings.samples_per_iteration:,} samples an iteration; {settings.timesteps:,} steps a training\n"
        f"- agent '{settings.agent.name}': {', '.join(in_words)}\n"
        "- observations and rewards are normalised; all else is SB3's default"
    )


def samplers_cells(row: SamplersRow) -> list[str]:
    """:param row: iterations of a number of samplers"""
    return [
        str(row.n_samplers),
        format_spread(row.collection_seconds),
        format_spread(row.speed_up),
        "" if math.isnan(row.report_speed_up) else f"{row.report_speed_up:g}",
        format_spread(row.learning_seconds),
        f"{row.learning_share.median:.0%}",
        "" if math.isnan(row.report_learning_share) else f"{row.report_learning_share:.0%}",
    ]


def overlap_cells(row: OverlapRow, samples: int) -> list[str]:
    """
    :param row: iterations of a contender
    :param samples: samples of an iteration
    """
    mode = f", {row.mode}" if row.contender.startswith("AsyncPPO") else ""
    times = (row.seconds, row.learning_seconds, row.waiting_seconds)
    return [row.contender + mode, *map(format_spread, times), f"{samples / row.seconds.median:,.0f}"]


def returns_cells(rows: Sequence[ReturnRow]) -> list[list[str]]:
    """
    :param rows: returns in bins of steps
    :return: cells of the table, of the last bin of each kind of training
    """
    last = {(row.workload, row.n_samplers): row for row in rows}
    return [
        [
            f"{workload}, N={n_samplers}",
            str(row.n_seeds),
            format_spread(row.mean_return, digits=4),
            format_spread(row.minutes),
        ]
        for (workload, n_samplers), row in last.items()
    ]


def format_spread(spread: Spread, digits: int = 3) -> str:
    """
    :param spread: some values of the same thing
    :param digits: how many count
    :return: median, and from the lowest to the highest if they differ
    """
    median, low, high = (format_number(value, digits) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def format_number(value: float, digits: int) -> str:
    """
    :param value: a number
    :param digits: how many count
    :return: the number, without an exponent
    """
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{decimals}f}"
