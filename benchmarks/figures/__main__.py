"""``python -m benchmarks.figures``"""

import argparse
import sys
from pathlib import Path

from benchmarks.figures.figures_settings import AGENTS, FiguresSettings
from benchmarks.figures.make_figures import make_figures
from sb3_walle.cli.arguments import INTERRUPTED, Parser, add_option, integer, of_the_user, run_command_line, set_command

EXAMPLES = """\
examples:
  python -m benchmarks.figures --quick --out figures
  python -m benchmarks.figures HalfCheetah-v4 --out figures
"""


def duration(text: str) -> float:
    """:return: the seconds of a time with the unit ``ms`` or ``s``, or of 0"""
    units = {"ms": 1e-3, "s": 1.0}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    try:
        value = float(text.removesuffix(unit))
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf") or not (unit or value == 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time, as '1ms' and '0.02s' are")
    return value * units.get(unit, 1.0)


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.figures",
        description="Make the figures of the WALL-E report on this machine, as PNG and CSV: return against\n"
        "time (figure 3), time and speed-up of collection by the number of samplers (4 and 5),\n"
        "shares of collection and learning (6), time of learning (7); and what it does not\n"
        "show: return against steps, and iterations from end to end, of all modes and of SB3.\n"
        "For the environment as it is, and for one whose steps take some time.\n"
        "Ctrl-C ends it early; the same command continues, also with more of the same.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    text = "Gymnasium id of the environment (default: HalfCheetah-v4)"
    parser.add_argument("env_id", metavar="ENV", nargs="?", help=text)
    add_option(parser, "--out", Path("figures"), "directory for figures and results", type=Path, metavar="DIR")
    text = "so little of everything that it takes some minutes; other options still apply"
    parser.add_argument("--quick", action="store_true", help=text)
    text = "agent: ppo, which learns HalfCheetah well; walle, the report's own, with a penalty on the KL divergence"
    add_option(parser, "--agent", None, f"{text} (default: ppo)", choices=AGENTS)
    text = "time of a step of the slow environment; 0 leaves it out (default: 1ms)"
    add_option(parser, "--step-latency", None, text, type=duration, metavar="TIME")
    text = "numbers of samplers in figures 4 to 7 (default: 1 2 5 8 10 20, and more where there are more CPUs)"
    add_option(parser, "--n-samplers", None, text, type=integer(1), nargs="+")
    text = "measurements of each iteration (default: 3; quick: 1)"
    add_option(parser, "--repeats", None, text, type=integer(1))
    text = "environment steps of each training, all samplers together (default: 2e6; quick: 4e4)"
    add_option(parser, "--timesteps", None, text, type=integer(1))
    text = "trainings of each kind, with the seeds 0, 1, 2, ... (default: 3; quick: 1)"
    add_option(parser, "--seeds", None, text, type=integer(1), dest="n_seeds")
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in of_the_user(arguments).items() if value is not None}
    directory = given.pop("out")
    outcome = make_figures(FiguresSettings.of(given.pop("quick"), **given), directory)
    print(outcome.report)
    print("Figures:")
    for image in outcome.images:
        print(f"  {image}")
    if outcome.interrupted:
        print("Interrupted: the same command continues")
    return INTERRUPTED if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
