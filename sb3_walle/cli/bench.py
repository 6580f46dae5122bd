"""``sb3-walle bench``"""

import argparse
from typing import Any

from sb3_walle.cli.arguments import LEARNERS, add_option, integer, of_the_user, set_command

# Repeated here because importing what knows them takes seconds.
ALGORITHMS = ("ppo", "sac", "td3", "ddpg", "dqn")
EXAMPLE = """\
example:
  sb3-walle bench HalfCheetah-v4 --n-samplers 10
  sb3-walle bench my_package:MyEnv-v0 --algo sac
"""


def add_command(commands: Any) -> None:
    """
    Describe ``sb3-walle bench``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "bench",
        help="measure an asynchronous algorithm against SB3's on your environment",
        description="Measure steps per second of an asynchronous algorithm, and of SB3's with DummyVecEnv and\n"
        "SubprocVecEnv: while they only collect, and while they train. All have as many\n"
        "environments and SB3's default hyperparameters.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    set_command(parser, run_command)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")
    add_option(parser, "--algo", "ppo", "algorithm", choices=ALGORITHMS, metavar="{" + ",".join(ALGORITHMS) + "}")
    add_option(parser, "--n-samplers", 10, "samplers, and environments of SB3's VecEnvs", type=integer(1))
    text = "environment steps of a measurement, after those to warm up (default: PPO two rollouts, others 2000)"
    add_option(parser, "--timesteps", None, text, type=integer(1), metavar="N")
    text = "update of the asynchronous algorithm"
    add_option(parser, "--learner", "compiled", text, choices=LEARNERS, metavar="{" + ",".join(LEARNERS) + "}")


def run_command(arguments: argparse.Namespace) -> int:
    """
    Measure as the arguments say, and print the table.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.cli.comparison import Comparison

    print(Comparison(**of_the_user(arguments)).run())
    return 0
