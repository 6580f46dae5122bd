"""The option ``--net-arch`` of the commands that compare algorithms."""

import argparse
from typing import Any

from sb3_walle.cli.arguments import add_option, integer


def add_net_arch(group: Any) -> None:
    add_option(group, "--net-arch", None, "units of each hidden layer (default: SB3's)", nargs="+", type=integer(1))


def policy_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """:return: the algorithm's arguments that follow from the option"""
    return {} if arguments.net_arch is None else {"policy_kwargs": {"net_arch": arguments.net_arch}}
