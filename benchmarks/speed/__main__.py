"""``python -m benchmarks.speed``"""

import argparse
import sys
from pathlib import Path

from benchmarks.net_arch import add_net_arch, policy_arguments
from benchmarks.speed.measurements import write_measurements
from benchmarks.speed.off_policy_speed import OffPolicySpeed
from benchmarks.speed.parts import OFF_POLICY_PARTS, PPO_PARTS, Part, parts_of
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.speed.run_parts import run_parts
from benchmarks.speed.speed_settings import SpeedSettings
from sb3_walle.cli.arguments import (
    ALGORITHMS,
    LEARNERS,
    Parser,
    UsageError,
    add_comparison,
    add_option,
    integer,
    run_command_line,
    set_command,
)

EXAMPLES = """\
examples:
  python -m benchmarks.speed HalfCheetah-v4 --repeats 3 --out speed.csv
  python -m benchmarks.speed HalfCheetah-v4 --algo sac --parts update
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.speed",
        description="Measure asynchronous algorithms against SB3's with DummyVecEnv and SubprocVecEnv: collection\n"
        "alone, training end to end, updates, start-up and memory, and the share of what the CPUs\n"
        "could simulate at most. The contenders take turns; the report has medians over the repeats.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    # benchmarks.trpo measures TRPO.
    add_comparison(parser, (name for name in ALGORITHMS if name != "trpo"))
    text = f"what to measure: {', '.join(PPO_PARTS)}; off-policy {', '.join(OFF_POLICY_PARTS)} (default: all)"
    names = tuple({**PPO_PARTS, **OFF_POLICY_PARTS})
    parser.add_argument("--parts", help=text, nargs="+", choices=names, metavar="PART")
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    add_option(parser, "--learner", "compiled", "which update ours makes", choices=LEARNERS)
    parser.add_argument("--skip-subproc", action="store_true", help="leave out SubprocVecEnv, which is slow")
    text = "train with SBX, too, SB3's algorithms in JAX (pip install sbx-rl)"
    parser.add_argument("--sbx", action="store_true", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV file for every single measurement")
    text = "environment steps of an iteration of PPO, all environments together"
    add_option(parser, "--samples-per-iteration", 20480, text, type=integer(2))
    add_option(parser, "--iterations", 3, "iterations of PPO in a measurement", type=integer(1))
    add_net_arch(parser)
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    report, measurements = run_parts(settings_of(arguments), chosen_parts(arguments))
    print(report)
    if arguments.out is not None:
        write_measurements(measurements, arguments.out)
        print(f"Every single measurement is in {arguments.out}")
    return 0


def settings_of(arguments: argparse.Namespace) -> SpeedSettings:
    """
    :raises UsageError: if arguments belong to other algorithms
    """
    common = {
        "env_id": arguments.env,
        "n_samplers": arguments.n_samplers,
        "repeats": arguments.repeats,
        "learner": arguments.learner,
        "skip_subproc": arguments.skip_subproc,
        "sbx": arguments.sbx,
    }
    policy = policy_arguments(arguments)
    if arguments.algo != "ppo":
        return OffPolicySpeed(**common, algorithm=arguments.algo, arguments=policy)
    amounts = {"samples_per_iteration": arguments.samples_per_iteration, "iterations": arguments.iterations}
    return PPOSpeed(**common, **amounts, policy_arguments=policy)


def chosen_parts(arguments: argparse.Namespace) -> dict[str, Part]:
    """
    :return: the parts to measure, by name
    :raises UsageError: if one of them is not measured of the algorithm
    """
    known = parts_of(arguments.algo)
    chosen = tuple(known) if arguments.parts is None else tuple(arguments.parts)
    for name in chosen:
        if name not in known:
            raise UsageError(f"'{name}' is not measured of {arguments.algo}, but {', '.join(known)}")
    return {name: known[name] for name in chosen}


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
