"""``sb3-walle bench``"""

import argparse
from typing import Any

from sb3_walle.cli.arguments import (
    LEARNERS,
    add_comparison,
    add_n_learners,
    add_option,
    integer,
    of_the_user,
    set_command,
)

EXAMPLE = """\
example:
  sb3-walle bench HalfCheetah-v4 --n-samplers 10
  sb3-walle bench my_package:MyEnv-v0 --algo sac
"""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure an asynchronous algorithm against SB3's on your environment",
        description="Measure steps per second of an asynchronous algorithm, and of SB3's with DummyVecEnv and\n"
        "SubprocVecEnv: while they only collect, and while they train. All have as many\n"
        "environments and SB3's default hyperparameters.",
        epilog=EXAMPLE,
    )
    set_command(parser, run_command)
    add_comparison(parser)
    text = "steps of a measurement, after those to warm up (default: PPO and TRPO two rollouts, others 2000)"
    add_option(parser, "--timesteps", None, text, type=integer(1))
    add_option(parser, "--learner", "compiled", "update of the asynchronous algorithm", choices=LEARNERS)
    add_n_learners(parser)


def run_command(arguments: argparse.Namespace) -> int:
    from sb3_walle.cli.comparison import Comparison

    print(Comparison(**of_the_user(arguments)).run())
    return 0
