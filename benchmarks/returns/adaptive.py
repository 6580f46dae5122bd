"""``python -m benchmarks.returns.adaptive``"""

import argparse
import sys
from pathlib import Path

from benchmarks.returns.adaptive_returns import TARGET_KL, TARGET_STEPS, AdaptiveReturns
from benchmarks.returns.comparison import compare_returns
from sb3_walle.cli.arguments import (
    INTERRUPTED,
    MODES,
    Parser,
    add_env,
    add_option,
    integer,
    run_command_line,
    set_command,
)

EXAMPLES = """\
examples:
  python -m benchmarks.returns.adaptive HalfCheetah-v4
  python -m benchmarks.returns.adaptive Hopper-v4 --adapt both --timesteps 1e6 --seeds 5
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.returns.adaptive",
        description="Train with whole episodes, once with a fixed trust region and once with one that\n"
        f"adapts: both begin with target_kl={TARGET_KL} and {TARGET_STEPS:,} steps an iteration, as in\n"
        "Frans & Hafner's paper. Results are those of python -m benchmarks.returns, and --out\n"
        "continues them.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    add_env(parser)
    add_option(parser, "--algorithm", "AsyncTRPO", "class of the algorithm", choices=("AsyncTRPO", "AsyncPPO"))
    add_option(parser, "--adapt", "kl", "what adapts", choices=("kl", "steps", "both"))
    add_option(parser, "--timesteps", 5_000_000, "environment steps of each run", type=integer(1))
    add_option(parser, "--seeds", 3, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    add_option(parser, "--n-samplers", 10, "samplers, of one environment each", type=integer(1))
    parser.add_argument("--modes", default=["sync"], help="modes (default: sync)", nargs="+", choices=MODES)
    text = "normalise observations and rewards, as SB3's VecNormalize does"
    parser.add_argument("--normalize", action="store_true", help=text)
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(parser, "--out", None, text, type=Path, metavar="DIR")
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    settings = AdaptiveReturns(
        arguments.env,
        arguments.timesteps,
        arguments.seeds,
        arguments.n_samplers,
        modes=tuple(arguments.modes),
        normalize=arguments.normalize,
        algorithm=arguments.algorithm,
        adapt=arguments.adapt,
    )
    outcome = compare_returns(settings, arguments.out)
    print(outcome.report)
    print(f"Returns, report and figures are in\n  {outcome.directory}")
    return INTERRUPTED if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
