"""The option ``--net-arch`` of the commands that compare algorithms."""

import argparse
from typing import Any

from sb3_walle.cli.arguments import UsageError, add_option, integer


def add_net_arch(group: Any) -> None:
    text = "units of each hidden layer of off-policy algorithms (default: SB3's)"
    add_option(group, "--net-arch", None, text, nargs="+", type=integer(1))


def policy_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    :return: the algorithm's arguments that follow from the option
    :raises UsageError: if the algorithm is PPO or TRPO
    """
    if arguments.net_arch is None:
        return {}
    if arguments.algo in ("ppo", "trpo"):
        raise UsageError("--net-arch is for off-policy algorithms, such as --algo sac")
    return {"policy_kwargs": {"net_arch": arguments.net_arch}}
