"""``python -m benchmarks.cluster``"""

import argparse
import importlib.util
import socket
import sys
from collections.abc import Collection

from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.parts import PARTS
from benchmarks.cluster.rllib_contender import check_rllib
from benchmarks.machine import describe_machine
from benchmarks.speed.measurements import medians_of
from benchmarks.speed.run_parts import repeat_parts
from sb3_walle.cli.arguments import Parser, UsageError, add_env, add_option, integer, run_command_line, set_command
from sb3_walle.cli.environments import check_environment

# These start a cluster that asks for no token.
PARTS_WITH_A_CLUSTER = ("start", "growth")
OWN_NETWORK = "python tests/own_network.py python -m benchmarks.cluster"
EXAMPLES = f"""\
examples:
  {OWN_NETWORK} HalfCheetah-v4
  python -m benchmarks.cluster HalfCheetah-v4 --parts collection training --rllib
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.cluster",
        description="Measure samplers on a Ray cluster beside samplers in processes of this machine, and beside an\n"
        "environment that makes a remote call for each step. The contenders take turns; the report has\n"
        "medians over the repeats.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    add_env(parser)
    text = f"what to measure: {', '.join(PARTS)} (default: all)"
    parser.add_argument("--parts", help=text, nargs="+", choices=tuple(PARTS), default=tuple(PARTS), metavar="PART")
    add_option(parser, "--n-samplers", 10, "samplers", type=integer(1))
    text = "address of a cluster for parts that do not start one (default: the one of this machine, or a new one)"
    add_option(parser, "--address", None, text)
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    text = 'measure RLlib\'s PPO, too (pip install "ray[rllib]")'
    parser.add_argument("--rllib", action="store_true", help=text)
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    check_environment(arguments.env)
    check_ray(arguments.parts)
    if arguments.rllib:
        check_rllib()
    settings = ClusterSettings(arguments.env, arguments.n_samplers, address=arguments.address, rllib=arguments.rllib)
    machine = describe_machine()
    parts = {name: PARTS[name] for name in arguments.parts}
    measurements = repeat_parts(settings, parts, arguments.repeats)
    print(f"{settings.env_id}, {settings.n_samplers} samplers, {machine.in_words()}")
    print(f"Medians of {arguments.repeats} repeat(s), in each of which the contenders took turns")
    for name, part in parts.items():
        print(f"\n\n{part.title}\n\n{part.table(medians_of(measurements, name))}")
    return 0


def check_ray(parts: Collection[str]) -> None:
    """
    :raises UsageError: if Ray is not installed, or a cluster would be within the reach of others
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError('this needs Ray: pip install ".[ray]"')
    exposed = [name for name in PARTS_WITH_A_CLUSTER if name in parts]
    if exposed and [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise UsageError(
            f"{' and '.join(exposed)} would start a Ray cluster that others can reach: run '{OWN_NETWORK}', or name "
            "other --parts"
        )


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
