"""``sb3-walle returns``"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_walle.cli.arguments import INTERRUPTED, MODES, add_option, add_ppo_options, integer

if TYPE_CHECKING:
    from sb3_walle.experiments.returns.comparison import ReturnsOutcome

EXAMPLE = """\
example:
  sb3-walle returns HalfCheetah-v4 --timesteps 1e6 --seeds 5 --modes pipelined sync --normalize
"""


def add_command(commands: Any) -> None:
    """
    Describe ``sb3-walle returns``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "returns",
        help="compare AsyncPPO's return with that of SB3's PPO",
        description="Train SB3's PPO with DummyVecEnv and AsyncPPO, with as many environments, the same\n"
        "hyperparameters and the same seeds, and compare their returns at equal numbers of\n"
        "steps. The contenders take turns, seed by seed. Leaves a directory with returns.csv,\n"
        "report.md, returns.png and learning_curves.png, which shows minutes, too. Ctrl-C ends\n"
        "it early; with --out and the same directory it goes on, also with more seeds or other\n"
        "modes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_command)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")

    runs = parser.add_argument_group("runs")
    text = "environment steps of each run, all environments together"
    add_option(runs, "--timesteps", 200_000, text, type=integer(1))
    add_option(runs, "--seeds", 5, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    text = "bins of steps for which returns are averaged, a multiple of 5"
    add_option(runs, "--bins", 20, text, type=integer(5))
    text = "directory for the results, or with results to go on with (default: a new one in runs)"
    add_option(runs, "--out", None, text, type=Path, metavar="DIR")

    contenders = parser.add_argument_group("contenders")
    add_option(contenders, "--n-samplers", 10, "sampler processes of AsyncPPO", type=integer(1))
    add_option(contenders, "--envs-per-sampler", 1, "environments that each sampler steps", type=integer(1))
    text = "modes of AsyncPPO, each of them a contender (default: pipelined)"
    names = "{" + ",".join(MODES) + "}"
    contenders.add_argument("--modes", default=["pipelined"], help=text, nargs="+", choices=MODES, metavar=names)
    text = "normalise observations and rewards, as SB3's VecNormalize does (default: no)"
    contenders.add_argument("--normalize", action=argparse.BooleanOptionalAction, help=text)

    ppo = parser.add_argument_group("PPO", "For all contenders. The defaults are those of SB3's PPO.")
    text = "steps of each environment in an iteration (default: 2048 divided by the number of environments)"
    add_option(ppo, "--n-steps", None, text, type=integer(1), metavar="N")
    add_ppo_options(ppo)


def run_command(arguments: argparse.Namespace) -> int:
    """
    Compare as the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.returns.comparison import compare_returns
    from sb3_walle.experiments.returns.ppo import PPOReturns

    ppo = dict(vars(arguments))
    settings = PPOReturns(
        env_id=ppo.pop("env"),
        total_timesteps=ppo.pop("timesteps"),
        n_seeds=ppo.pop("seeds"),
        n_samplers=ppo.pop("n_samplers"),
        envs_per_sampler=ppo.pop("envs_per_sampler"),
        modes=tuple(ppo.pop("modes")),
        normalize=bool(ppo.pop("normalize")),
        n_bins=ppo.pop("bins"),
        ppo={name: value for name, value in ppo.items() if name not in ("command", "run", "out") and value is not None},
    )
    return report_outcome(compare_returns(settings, arguments.out))


def report_outcome(outcome: "ReturnsOutcome") -> int:
    """
    Print what came out.

    :param outcome: how a comparison of returns ended
    :return: exit code
    """
    print(outcome.report)
    print(f"Returns, report and figures are in\n  {outcome.directory}")
    if outcome.interrupted:
        print(f"Interrupted: the same command with '--out {outcome.directory}' goes on")
    return INTERRUPTED if outcome.interrupted else 0
