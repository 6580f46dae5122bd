"""``python -m benchmarks.returns``"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.net_arch import add_net_arch, policy_arguments
from benchmarks.returns.comparison import compare_returns
from benchmarks.returns.off_policy_returns import OffPolicyReturns
from benchmarks.returns.ppo_returns import PPOReturns
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.algorithms import sb3_defaults
from sb3_walle.cli.arguments import (
    INTERRUPTED,
    MODES,
    Parser,
    UsageError,
    add_comparison,
    add_option,
    add_ppo_options,
    integer,
    run_command_line,
    set_command,
)
from sb3_walle.cli.zoo import zoo_hyperparameters

EXAMPLES = """\
examples:
  python -m benchmarks.returns HalfCheetah-v4 --timesteps 1e6 --modes pipelined sync --normalize
  python -m benchmarks.returns HalfCheetah-v4 --zoo --seeds 3 --modes pipelined --out runs/zoo
  python -m benchmarks.returns HalfCheetah-v4 --algo trpo --timesteps 1e6 --modes sync pipelined --normalize
  python -m benchmarks.returns Pendulum-v1 --algo sac --net-arch 64 64
  python -m benchmarks.returns CartPole-v1 --algo dqn --modes pipelined --prioritized
"""
# Off-policy algorithms make a gradient step for about each environment step.
TIMESTEPS = {"ppo": 200_000, "trpo": 200_000, "dqn": 50_000}
OTHER_TIMESTEPS = 10_000
MODES_OF = {"trpo": ("sync", "pipelined")}
OTHER_MODES = ("pipelined", "free")
# Options of all algorithms. All others are of PPO, and some of these of TRPO.
COMMON = (
    "run",
    "prog",
    "env",
    "algo",
    "timesteps",
    "seeds",
    "n_samplers",
    "modes",
    "normalize",
    "net_arch",
    "prioritized",
    "out",
    "zoo",
)
N_SAMPLERS = 10


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.returns",
        description="Train SB3's algorithm with DummyVecEnv and ours, with as many environments, the same\n"
        "hyperparameters and the same seeds, and compare their returns at equal numbers of\n"
        "steps. The contenders take turns, seed by seed. Leaves a directory with returns.csv,\n"
        "report.md, returns.png and learning_curves.png, which shows minutes, too. Ctrl-C ends\n"
        "it early; with --out and the same directory it continues, also with more seeds or other\n"
        "modes.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    add_comparison(parser)
    # The Zoo may have another default.
    parser.set_defaults(n_samplers=None)

    runs = parser.add_argument_group("runs")
    text = "environment steps of each run, all environments together (default: PPO, TRPO 200000, DQN 50000, else 10000)"
    add_option(runs, "--timesteps", None, text, type=integer(1))
    add_option(runs, "--seeds", 5, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(runs, "--out", None, text, type=Path, metavar="DIR")

    contenders = parser.add_argument_group("contenders")
    text = "modes of ours, each of them a contender (default: pipelined free; TRPO sync pipelined)"
    contenders.add_argument("--modes", help=text, nargs="+", choices=MODES)
    text = "normalise observations and rewards, as SB3's VecNormalize does"
    contenders.add_argument("--normalize", action="store_true", help=text)
    add_net_arch(contenders)
    text = "ours with prioritised replay, too, in each of its modes (only dqn)"
    contenders.add_argument("--prioritized", action="store_true", help=text)

    text = "hyperparameters, steps and number of environments that the RL Zoo has for the environment (PPO and TRPO)"
    contenders.add_argument("--zoo", action="store_true", help=text)

    ppo = parser.add_argument_group("PPO and TRPO", "For all contenders. The defaults are those of SB3's PPO.")
    text = "steps of each environment in an iteration (default: 2048 divided by the number of environments)"
    add_option(ppo, "--n-steps", None, text, only_given=True, type=integer(1))
    add_ppo_options(ppo)
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    outcome = compare_returns(settings_of(arguments), arguments.out)
    print(outcome.report)
    print(f"Returns, report and figures are in\n  {outcome.directory}")
    if outcome.interrupted:
        print(f"Interrupted: the same command with '--out {outcome.directory}' continues")
    return INTERRUPTED if outcome.interrupted else 0


def settings_of(arguments: argparse.Namespace) -> ReturnsSettings:
    """
    :raises UsageError: if arguments belong to other algorithms
    """
    algorithm = arguments.algo
    policy = policy_arguments(arguments)
    ppo = {name: value for name, value in vars(arguments).items() if name not in COMMON}
    if arguments.prioritized and algorithm != "dqn":
        raise UsageError(f"--prioritized is for --algo dqn, not for {algorithm}")
    common = {
        "env_id": arguments.env,
        "total_timesteps": arguments.timesteps or TIMESTEPS.get(algorithm, OTHER_TIMESTEPS),
        "n_seeds": arguments.seeds,
        "n_samplers": arguments.n_samplers or N_SAMPLERS,
        "modes": tuple(arguments.modes or MODES_OF.get(algorithm, OTHER_MODES)),
        "normalize": arguments.normalize,
    }
    if algorithm in ("ppo", "trpo"):
        for name in ppo.keys() - sb3_defaults(algorithm).keys():
            raise UsageError(f"--{name.replace('_', '-')} is no option of {algorithm.upper()}")
        zoo = settings_of_the_zoo(arguments) if arguments.zoo else {"ppo": {}}
        return PPOReturns(**{**common, **zoo, "algorithm": algorithm, "ppo": {**zoo["ppo"], **policy, **ppo}})
    for name in (*ppo, *(["zoo"] if arguments.zoo else [])):
        raise UsageError(f"--{name.replace('_', '-')} is for --algo ppo, not for {algorithm}")
    return OffPolicyReturns(**common, algorithm=algorithm, arguments=policy, prioritized=arguments.prioritized)


def settings_of_the_zoo(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    :return: arguments of :class:`PPOReturns` that the RL Zoo knows, unless the user gives them
    :raises UsageError: if there are none, or if they are of environments in wrappers
    """
    known = zoo_hyperparameters(arguments.algo, arguments.env)
    if known is None:
        raise UsageError(f"the RL Zoo has no hyperparameters for '{arguments.env}', or is not installed")
    if known.wrappers or known.frame_stack or known.left_out:
        raise UsageError(f"the RL Zoo trains '{arguments.env}' in wrappers, which this comparison does not know")
    ppo = dict(known.arguments)
    return {
        "normalize": ppo.pop("normalize", arguments.normalize),
        "total_timesteps": arguments.timesteps or known.total_timesteps,
        "n_samplers": arguments.n_samplers or known.n_envs,
        "ppo": ppo,
    }


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
