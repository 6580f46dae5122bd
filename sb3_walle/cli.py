"""The ``sb3-walle`` command: what it understands. The work is done in :mod:`sb3_walle.experiments`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sb3_walle import __version__

# PyTorch takes seconds to import: only the commands that need it import what does, so that --help is instant.

INTERRUPTED = 130
USAGE_ERROR = 2

TRAIN_EXAMPLE = """\
example:
  sb3-walle train HalfCheetah-v4 --n-samplers 10 --timesteps 1e6
"""
BENCH_EXAMPLE = """\
example:
  sb3-walle bench HalfCheetah-v4 --n-samplers 10 --repeats 3 --out bench.csv
"""
RETURNS_EXAMPLE = """\
example:
  sb3-walle returns HalfCheetah-v4 --timesteps 1e6 --seeds 5 --modes pipelined sync --normalize
"""
EXAMPLES = "examples:\n" + "".join(
    example.partition("\n")[2] for example in (TRAIN_EXAMPLE, BENCH_EXAMPLE, RETURNS_EXAMPLE)
)

MODES = {
    "sync": "samplers wait for each update, as in SB3",
    "pipelined": "they collect the next rollout during the update",
    "free": "first come, first served",
}


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, without repeating all options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def integer(minimum: int) -> Callable[[str], int]:
    """
    The type of an argument that is a whole number.

    :param minimum: the smallest number allowed
    :return: what turns the argument into the number; it takes ``1e6`` and ``1_000_000`` as well
    """

    def convert(text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not value.is_integer():
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text} is too small: at least {minimum} is needed")
        return int(value)

    return convert


def number(minimum: float, maximum: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """
    The type of an argument that is a number.

    :param minimum: the smallest number allowed
    :param maximum: the largest number allowed
    :param above: whether the number must be above the minimum, not equal to it
    :return: what turns the argument into the number
    """
    bound = f"above {minimum:g}" if above else f"at least {minimum:g}"
    allowed = bound if maximum == float("inf") else f"{bound} and at most {maximum:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
        # NaN is neither within the bounds nor outside them.
        if not minimum <= value <= maximum or value == float("inf") or (above and value == minimum):
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {allowed}")
        return value

    return convert


def add_option(group: Any, flag: str, default: Any, text: str, **kwargs: Any) -> None:
    """
    Describe an option.

    :param group: the parser or the group of arguments to add it to
    :param flag: its name, with the dashes
    :param default: its default, which the help shows unless it is None
    :param text: what it is
    :param kwargs: further arguments of ``add_argument()``
    """
    kwargs.setdefault("metavar", "N" if isinstance(default, int) else "X")
    shown = f"{text} (default: %(default)s)" if default is not None else text
    group.add_argument(flag, default=default, help=shown, **kwargs)


def add_ppo_options(group: Any) -> None:
    """
    Describe the arguments of PPO, with SB3's defaults, but for ``--n-steps``.

    :param group: the group of arguments to add them to
    """
    add_option(group, "--batch-size", 64, "samples of a minibatch", type=integer(2))
    add_option(group, "--n-epochs", 10, "passes over the samples of an iteration", type=integer(1))
    add_option(group, "--learning-rate", 3e-4, "learning rate of the optimiser", type=number(0, above=True))
    add_option(group, "--gamma", 0.99, "discount factor", type=number(0, 1))
    add_option(group, "--gae-lambda", 0.95, "bias against variance of the advantage estimates", type=number(0, 1))
    add_option(group, "--ent-coef", 0.0, "weight of the entropy in the loss", type=number(0))
    add_option(group, "--clip-range", 0.2, "clipping of the probability ratio", type=number(0, above=True))


def add_train_command(commands: Any) -> None:
    """
    Describe ``sb3-walle train``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "train",
        help="train AsyncPPO and leave a run directory",
        description="Train AsyncPPO on an environment. Leaves a directory with model.zip (which SB3's\n"
        "PPO.load reads), progress.csv, TensorBoard events, settings.json and\n"
        "learning_curve.png. Ctrl-C ends the training early and saves what there is.",
        epilog=TRAIN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_train)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")

    run = parser.add_argument_group("run")
    text = "environment steps to train for, all environments together"
    add_option(run, "--timesteps", 1_000_000, text, type=integer(1))
    text = "seed of the pseudo-random generators (default: none)"
    add_option(run, "--seed", None, text, type=integer(0), metavar="N")
    add_option(run, "--device", "auto", "PyTorch device of the learner", metavar="NAME")
    add_option(run, "--run-dir", Path("runs"), "where to make the run's directory", type=Path, metavar="DIR")

    samplers = parser.add_argument_group("samplers")
    text = "sampler processes (default: the CPUs that this process may use)"
    add_option(samplers, "--n-samplers", None, text, type=integer(1), metavar="N")
    add_option(samplers, "--envs-per-sampler", 1, "environments that each sampler steps", type=integer(1))
    text = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    add_option(samplers, "--mode", "pipelined", text, choices=MODES, metavar="{" + ",".join(MODES) + "}")
    text = "updates that experience may be old by, with --mode free (default: 1)"
    add_option(samplers, "--max-policy-lag", None, text, type=integer(1), metavar="N")
    text = "what computes the samplers' actions; auto: numpy where the policy allows it"
    add_option(samplers, "--actor", "auto", text, choices=("auto", "torch", "numpy"), metavar="{auto,torch,numpy}")

    ppo = parser.add_argument_group("PPO", "The defaults are those of SB3's PPO.")
    policies = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
    add_option(ppo, "--policy", "MlpPolicy", "policy network", choices=policies, metavar="{" + ",".join(policies) + "}")
    add_option(ppo, "--n-steps", 2048, "steps of each environment in an iteration", type=integer(1))
    add_ppo_options(ppo)
    text = "normalise observations and rewards (VecNormalize), and save the statistics beside the model"
    ppo.add_argument("--normalize", action="store_true", help=text)


def add_bench_command(commands: Any) -> None:
    """
    Describe ``sb3-walle bench``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "bench",
        help="measure AsyncPPO against SB3's PPO on this machine",
        description="Measure AsyncPPO against SB3's PPO with DummyVecEnv and SubprocVecEnv: collection\n"
        "alone, training end to end, one policy update, start-up and memory, and the share\n"
        "of what the CPUs could simulate at most. The contenders take turns; what is\n"
        "reported are medians over the repeats.",
        epilog=BENCH_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_bench)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")

    def option(group: Any, flag: str, default: int, minimum: int, text: str) -> None:
        help_text = f"{text} (default: %(default)s)"
        group.add_argument(flag, default=default, type=integer(minimum), metavar="N", help=help_text)

    contenders = parser.add_argument_group("contenders")
    option(contenders, "--n-samplers", 10, 1, "samplers of one environment, and environments of SB3's VecEnvs")
    text = "environments of each sampler in the second configuration, which has one sampler a CPU"
    option(contenders, "--envs-per-sampler", 8, 1, text)
    text = "leave out SubprocVecEnv, which is slow to start and slow to step"
    contenders.add_argument("--skip-subproc", action="store_true", help=text)

    work = parser.add_argument_group("work")
    option(work, "--samples-per-iteration", 20480, 2, "environment steps of an iteration, all environments together")
    option(work, "--n-epochs", 10, 1, "passes over the samples of an iteration")
    option(work, "--batch-size", 64, 2, "samples of a minibatch")

    measuring = parser.add_argument_group("measuring")
    option(measuring, "--repeats", 3, 1, "times to measure everything")
    option(measuring, "--iterations", 3, 1, "iterations of each measurement, after one to warm up")
    text = "also write every single measurement to this file"
    measuring.add_argument("--out", type=Path, metavar="FILE.csv", help=text)


def add_returns_command(commands: Any) -> None:
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
        "report.md and returns.png. Ctrl-C ends it early; with --out and the same directory it\n"
        "goes on, also with more seeds or other modes.",
        epilog=RETURNS_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_returns)
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


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    :return: its parser
    """
    parser = Parser(
        prog="sb3-walle",
        description="Asynchronous samplers for Stable-Baselines3: N processes collect experience while\n"
        "the learner trains.",
        epilog=f"{EXAMPLES}\n'sb3-walle COMMAND --help' tells more about a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sb3-walle {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    add_train_command(commands)
    add_bench_command(commands)
    add_returns_command(commands)
    return parser


def run_train(arguments: argparse.Namespace) -> int:
    """
    Train as the arguments say.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.training import TrainingSettings, train

    algorithm = dict(vars(arguments))
    settings = TrainingSettings(
        env_id=algorithm.pop("env"),
        total_timesteps=algorithm.pop("timesteps"),
        policy=algorithm.pop("policy"),
        runs=algorithm.pop("run_dir"),
        algorithm={name: value for name, value in algorithm.items() if name not in ("command", "run")},
    )
    outcome = train(settings)
    ended = "Interrupted" if outcome.interrupted else "Finished"
    print(f"{ended} after {outcome.timesteps:,} timesteps. The model, the log and the learning curve are in")
    print(f"  {outcome.directory}")
    return INTERRUPTED if outcome.interrupted else 0


def run_bench(arguments: argparse.Namespace) -> int:
    """
    Measure as the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.benchmark import BenchmarkSettings, run_benchmark
    from sb3_walle.experiments.benchmark_report import format_report, write_csv

    settings = BenchmarkSettings(
        env_id=arguments.env,
        n_samplers=arguments.n_samplers,
        envs_per_sampler=arguments.envs_per_sampler,
        samples_per_iteration=arguments.samples_per_iteration,
        n_epochs=arguments.n_epochs,
        batch_size=arguments.batch_size,
        iterations=arguments.iterations,
        repeats=arguments.repeats,
        skip_subproc=arguments.skip_subproc,
    )
    results = run_benchmark(settings)
    print(format_report(results))
    if arguments.out is not None:
        write_csv(results, arguments.out)
        print(f"Every single measurement is in {arguments.out}")
    return 0


def run_returns(arguments: argparse.Namespace) -> int:
    """
    Compare as the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.returns.comparison import ReturnsSettings, compare_returns

    ppo = dict(vars(arguments))
    settings = ReturnsSettings(
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
    outcome = compare_returns(settings, arguments.out)
    print(outcome.report)
    print(f"Returns, report and figure are in\n  {outcome.directory}")
    if outcome.interrupted:
        print(f"Interrupted: the same command with '--out {outcome.directory}' goes on")
    return INTERRUPTED if outcome.interrupted else 0


def main(argv: Sequence[str] | None = None) -> int:
    """
    The ``sb3-walle`` command.

    :param argv: its arguments; those of this process by default
    :return: exit code: 0, 2 if the arguments make no sense, 130 after Ctrl-C
    """
    arguments = build_parser().parse_args(argv)
    from sb3_walle.experiments.environments import UsageError

    try:
        return arguments.run(arguments)
    except UsageError as error:
        message = " ".join(str(error).split())
        print(f"sb3-walle {arguments.command}: error: {message}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"sb3-walle {arguments.command}: interrupted, nothing was saved", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
