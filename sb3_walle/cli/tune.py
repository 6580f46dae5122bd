"""``sb3-walle tune``"""

import argparse
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import ALGORITHMS, LEARNERS, add_env, add_option, integer, number, of_the_user, set_command

EXAMPLE = """\
example:
  sb3-walle tune HalfCheetah-v4 --n-envs 16
  sb3-walle tune my_package:MyEnv-v0 --algo sac
"""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "tune",
        help="find the numbers of samplers and the mode that train fastest on this machine",
        description="Train for a few seconds each with several numbers of samplers, modes and threads, and with\n"
        "SB3's algorithm with DummyVecEnv and SubprocVecEnv. Prints a table and a line to copy, and\n"
        "draws the table. What it compares is speed: steps per second, with as many environments and\n"
        "the same hyperparameters.",
        epilog=EXAMPLE,
    )
    set_command(parser, run_command)
    add_env(parser)
    add_option(parser, "--algo", "ppo", "algorithm", choices=ALGORITHMS)
    add_option(parser, "--n-envs", 16, "environments, all samplers together", type=integer(1))
    add_option(parser, "--seconds", 120.0, "about how long it may take", type=number(0, above=True))
    add_option(parser, "--learner", "compiled", "update of the asynchronous algorithm", choices=LEARNERS)
    add_option(parser, "--image", Path("tune.png"), "where to draw the table", type=Path, metavar="FILE")


def run_command(arguments: argparse.Namespace) -> int:
    from sb3_walle.cli.tuning import Tuning
    from sb3_walle.cli.tuning_report import draw, report

    options = of_the_user(arguments)
    image: Path = options.pop("image")
    outcome = Tuning(**options).run()
    print(report(outcome))
    print(draw(outcome, image))
    return 0
