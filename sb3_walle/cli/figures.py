"""``sb3-walle figures``"""

import argparse
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import INTERRUPTED, add_option, duration, integer

AGENTS = {
    "ppo": "PPO as in SB3, which learns HalfCheetah well",
    "walle": "the report's own PPO, with a penalty on the KL divergence",
}
EXAMPLE = """\
example:
  sb3-walle figures --quick --out figures
  sb3-walle figures HalfCheetah-v4 --out figures
"""


def add_command(commands: Any) -> None:
    """
    Describe ``sb3-walle figures``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "figures",
        help="make the figures of the WALL-E report on this machine",
        description="Make the figures of the WALL-E report on this machine, as PNG and CSV: return against\n"
        "time (figure 3), time and speed-up of collection by the number of samplers (4 and 5),\n"
        "shares of collection and learning (6), time of learning (7); and what it does not\n"
        "show: return against steps, and iterations from end to end, of all modes and of SB3.\n"
        "For the environment as it is, and for one whose steps take some time.\n"
        "Ctrl-C ends it early; the same command goes on, also with more of the same.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_command)
    text = "Gymnasium id of the environment (default: HalfCheetah-v4)"
    parser.add_argument("env", metavar="ENV", nargs="?", help=text)
    add_option(parser, "--out", Path("figures"), "directory for figures and results", type=Path, metavar="DIR")
    text = "so little of everything that it takes some minutes; what else is said counts all the same"
    parser.add_argument("--quick", action="store_true", help=text)

    work = parser.add_argument_group(
        "work", "Where nothing is said, a full run has what the report had, as far as that is known."
    )
    text = "who learns: " + "; ".join(f"{name}: {meaning}" for name, meaning in AGENTS.items()) + " (default: ppo)"
    add_option(work, "--agent", None, text, choices=AGENTS, metavar="{" + ",".join(AGENTS) + "}")
    text = "what a step of the slow environment takes; 0 leaves it out (default: 1ms)"
    add_option(work, "--step-latency", None, text, type=duration, metavar="TIME")
    text = "environment steps of an iteration, all samplers together (default: 20000; quick: 4000)"
    add_option(work, "--samples-per-iteration", None, text, type=integer(2), metavar="N")

    measuring = parser.add_argument_group("iterations (figures 4 to 7)")
    text = "numbers of samplers (default: 1 2 5 8 10 20, and more where there are more CPUs)"
    add_option(measuring, "--n-samplers", None, text, type=integer(1), nargs="+", metavar="N")
    text = "samplers, and SB3's environments, of the comparison of the modes (default: 10)"
    add_option(measuring, "--overlap-n-samplers", None, text, type=integer(1), metavar="N")
    add_option(
        measuring, "--repeats", None, "times to measure everything (default: 3; quick: 1)", type=integer(1), metavar="N"
    )
    text = "iterations of each measurement, after those to warm up (default: 2; quick: 1)"
    add_option(measuring, "--iterations", None, text, type=integer(1), metavar="N")

    training = parser.add_argument_group("training (figure 3)")
    text = "numbers of samplers that train (default: 1 10)"
    add_option(training, "--learning-n-samplers", None, text, type=integer(1), nargs="+", metavar="N")
    text = "environment steps of each training, all samplers together (default: 2e6; quick: 4e4)"
    add_option(training, "--timesteps", None, text, type=integer(1), metavar="N")
    text = "trainings of each kind, with the seeds 0, 1, 2, ... (default: 3; quick: 1)"
    add_option(training, "--seeds", None, text, type=integer(1), metavar="N", dest="n_seeds")


def run_command(arguments: argparse.Namespace) -> int:
    """
    Make the figures that the arguments ask for, and print what they show.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.figures.make import make_figures
    from sb3_walle.experiments.figures.settings import FiguresSettings

    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for name in ("command", "run", "out", "quick"):
        given.pop(name)
    given["env_id"] = given.pop("env", FiguresSettings.env_id)
    outcome = make_figures(FiguresSettings.of(arguments.quick, **given), arguments.out)
    print(outcome.report)
    print("Figures:")
    for image in outcome.images:
        print(f"  {image}")
    if outcome.interrupted:
        print("Interrupted: the same command goes on")
    return INTERRUPTED if outcome.interrupted else 0
