"""What ``sb3-walle tune`` found, as a table, as a line to copy and as a picture."""

from pathlib import Path
from statistics import median

from sb3_walle.cli.extras import MissingExtra, require_extra
from sb3_walle.cli.hyperparameter_choice import in_words
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.tuning import Contender, Outcome


def report(outcome: Outcome) -> str:
    """:return: the table, and the line to copy"""
    rows = [
        [contender.name, f"{rate:,.0f}", format_ratio(rate, best_of_sb3(outcome)), str(len(outcome.rates[contender]))]
        for contender, rate in outcome.ranked()
    ]
    tuning = outcome.tuning
    table = format_table([tuning.env, "steps/s", "vs best SB3", "measured"], rows)
    return f"{table}\n(samplers x environments of each; medians)\n\n{advice(outcome)}"


def best_of_sb3(outcome: Outcome) -> float:
    return max(median(rates) for contender, rates in outcome.rates.items() if not contender.is_ours)


def advice(outcome: Outcome) -> str:
    """:return: lines of Python that train in the fastest way"""
    best, env_id = outcome.best, outcome.tuning.env
    name = best.algorithm.__name__
    if not best.is_ours:
        package = best.algorithm.__module__.partition(".")[0]
        return (
            f"On this machine, SB3's {name} is fastest for {env_id}:\n\n"
            f"from {package} import {name}\n"
            f'model = {name}("{outcome.policy}", make_vec_env("{env_id}", {_arguments(best)}))'
        )
    threads = "import torch\ntorch.set_num_threads(1)\n" if best.one_thread else ""
    return (
        f"Fastest on this machine:\n\n{threads}from sb3_walle import {name}\n"
        f'model = {name}("{outcome.policy}", "{env_id}", {_arguments(best)})'
    )


def _arguments(contender: Contender) -> str:
    return in_words(contender.arguments).replace("'", '"')


def draw(outcome: Outcome, image: Path) -> str:
    """
    Draw the table as PNG, if matplotlib is installed.

    :return: one line for the user
    """
    try:
        require_extra("the picture", "matplotlib")
    except MissingExtra as error:
        return str(error)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sb3_walle.cli.learning_curve import BLUE

    ranked = outcome.ranked()[::-1]
    figure = Figure(figsize=(9, 1.2 + 0.35 * len(ranked)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = [BLUE if contender.is_ours else "0.6" for contender, _ in ranked]
    axes.barh([contender.name for contender, _ in ranked], [rate for _, rate in ranked], color=colours)
    for y, (contender, rate) in enumerate(ranked):
        rates = outcome.rates[contender]
        axes.plot(rates, [y] * len(rates), "k|", markersize=8)
        axes.annotate(
            f"{rate:,.0f}", (max(rates), y), xytext=(6, 0), textcoords="offset points", verticalalignment="center"
        )
    axes.margins(x=0.12)
    axes.set_xlabel("Environment steps per second while training: medians, and each measurement")
    axes.set_title(f"{outcome.tuning.env}, {outcome.tuning.n_envs} environments (samplers x environments of each)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(image, dpi=150)
    return f"Drawn in {image}"
