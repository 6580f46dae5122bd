"""``python -m benchmarks.returns``"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.returns.comparison import compare_returns
from benchmarks.returns.off_policy_returns import OffPolicyReturns
from benchmarks.returns.ppo_returns import PPOReturns
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.arguments import INTERRUPTED, MODES, Parser, add_option, add_ppo_options, integer, run, set_command
from sb3_walle.cli.comparison import ALGORITHMS
from sb3_walle.cli.environments import UsageError

EXAMPLES = """\
examples:
  python -m benchmarks.returns HalfCheetah-v4 --timesteps 1e6 --modes pipelined sync --normalize
  python -m benchmarks.returns Pendulum-v1 --algo sac --net-arch 64 64
"""
# Off-policy algorithms make a gradient step for about each environment step.
TIMESTEPS = {"ppo": 200_000, "dqn": 50_000}
OTHER_TIMESTEPS = 10_000
# Options of all algorithms. What else is given is of PPO.
COMMON = ("run", "prog", "env", "algo", "timesteps", "seeds", "n_samplers", "modes", "normalize", "net_arch", "out")


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    :return: its parser
    """
    parser = Parser(
        prog="python -m benchmarks.returns",
        description="Train SB3's algorithm with DummyVecEnv and ours, with as many environments, the same\n"
        "hyperparameters and the same seeds, and compare their returns at equal numbers of\n"
        "steps. The contenders take turns, seed by seed. Leaves a directory with returns.csv,\n"
        "report.md, returns.png and learning_curves.png, which shows minutes, too. Ctrl-C ends\n"
        "it early; with --out and the same directory it continues, also with more seeds or other\n"
        "modes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    set_command(parser, run_command)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")
    add_option(parser, "--algo", "ppo", "algorithm", choices=ALGORITHMS, metavar="{" + ",".join(ALGORITHMS) + "}")

    runs = parser.add_argument_group("runs")
    text = "environment steps of each run, all environments together (default: PPO 200000, DQN 50000, others 10000)"
    add_option(runs, "--timesteps", None, text, type=integer(1), metavar="N")
    add_option(runs, "--seeds", 5, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(runs, "--out", None, text, type=Path, metavar="DIR")

    contenders = parser.add_argument_group("contenders")
    add_option(contenders, "--n-samplers", 10, "samplers of one environment, and environments of SB3", type=integer(1))
    text = "modes of ours, each of them a contender (default: pipelined free)"
    contenders.add_argument("--modes", default=["pipelined", "free"], help=text, nargs="+", choices=MODES)
    text = "normalise observations and rewards, as SB3's VecNormalize does"
    contenders.add_argument("--normalize", action="store_true", help=text)
    text = "units of each hidden layer of off-policy algorithms (default: SB3's)"
    contenders.add_argument("--net-arch", help=text, nargs="+", type=integer(1), metavar="N")

    ppo = parser.add_argument_group("PPO", "For all contenders. The defaults are those of SB3's PPO.")
    text = "steps of each environment in an iteration (default: 2048 divided by the number of environments)"
    add_option(ppo, "--n-steps", None, text, only_given=True, type=integer(1), metavar="N")
    add_ppo_options(ppo, only_given=True)
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    """
    Compare as the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    outcome = compare_returns(settings_of(arguments), arguments.out)
    print(outcome.report)
    print(f"Returns, report and figures are in\n  {outcome.directory}")
    if outcome.interrupted:
        print(f"Interrupted: the same command with '--out {outcome.directory}' continues")
    return INTERRUPTED if outcome.interrupted else 0


def settings_of(arguments: argparse.Namespace) -> ReturnsSettings:
    """
    :param arguments: the parsed command line
    :return: whom to compare on what
    :raises UsageError: if the arguments are of other algorithms
    """
    algorithm = arguments.algo
    common = {
        "env_id": arguments.env,
        "total_timesteps": arguments.timesteps or TIMESTEPS.get(algorithm, OTHER_TIMESTEPS),
        "n_seeds": arguments.seeds,
        "n_samplers": arguments.n_samplers,
        "modes": tuple(arguments.modes),
        "normalize": arguments.normalize,
    }
    ppo = {name: value for name, value in vars(arguments).items() if name not in COMMON}
    if algorithm == "ppo":
        if arguments.net_arch is not None:
            raise UsageError("--net-arch is for off-policy algorithms: --algo sac, td3, ddpg or dqn")
        return PPOReturns(**common, ppo=ppo)
    if ppo:
        raise UsageError(f"--{next(iter(ppo)).replace('_', '-')} is for --algo ppo, not for {algorithm}")
    given = {} if arguments.net_arch is None else {"policy_kwargs": {"net_arch": arguments.net_arch}}
    return OffPolicyReturns(**common, algorithm=algorithm, arguments=given)


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments of the command; those of this process by default
    :return: exit code
    """
    return run(build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
