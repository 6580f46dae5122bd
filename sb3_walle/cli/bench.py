"""``sb3-walle bench``"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import LEARNERS, add_option, integer
from sb3_walle.cli.returns import report_outcome

# Repeated here because what knows them takes seconds to import.
OFF_POLICY = ("sac", "td3", "ddpg", "dqn")
# What can be measured by itself, and what that is.
PARTS = {
    "collection": "collecting experience, without training",
    "sampler": "what a sampler's step takes besides the environment",
    "update": "an update of the policy, alone and while samplers collect",
    "sizes": "updates of several networks with minibatches of 64 to 4096",
    "end-to-end": "training",
    "busy": "training beside two busy processes of others",
    "iteration": "where the time of training goes",
    "start": "time and memory until experience comes, and time to the first update",
}
# The same of off-policy algorithms.
REPLAY_PARTS = {
    "collection": "collecting experience, without training",
    "update": "a gradient step",
    "end-to-end": "training, with one gradient step for all environments and with one for each",
    "slow": "training with a simulator that waits 5 ms a step",
}
# By default about as many as there are iterations.
LEARNING_BINS = 15
# Off-policy algorithms make a gradient step for about each of them.
LEARNING_STEPS = {"ppo": 300_000, "dqn": 50_000}
OTHER_LEARNING_STEPS = 10_000
EXAMPLE = """\
example:
  sb3-walle bench HalfCheetah-v4 --n-samplers 10 --repeats 3 --out bench.csv
  sb3-walle bench HalfCheetah-v4 --learning
  sb3-walle bench HalfCheetah-v4 --algo sac
  sb3-walle bench Pendulum-v1 --algo sac --learning --net-arch 64 64
"""


def add_command(commands: Any) -> None:
    """
    Describe ``sb3-walle bench``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "bench",
        help="measure asynchronous algorithms against SB3's on this machine",
        description="Measure AsyncPPO against SB3's PPO with DummyVecEnv and SubprocVecEnv: collection\n"
        "alone, training end to end, one policy update, start-up and memory, and the share\n"
        "of what the CPUs could simulate at most. The contenders take turns; what is\n"
        "reported are medians over the repeats. With --learning, learning curves instead.\n"
        "With --algo sac, td3, ddpg or dqn, the same of an off-policy algorithm with SB3's own\n"
        "hyperparameters: collection, a gradient step, and training, also with a slow simulator.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_command)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")

    def option(group: Any, flag: str, default: int, minimum: int, text: str) -> None:
        help_text = f"{text} (default: %(default)s)"
        group.add_argument(flag, default=default, type=integer(minimum), metavar="N", help=help_text)

    text = "which algorithm"
    add_option(
        parser, "--algo", "ppo", text, choices=("ppo", *OFF_POLICY), metavar="{ppo," + ",".join(OFF_POLICY) + "}"
    )

    contenders = parser.add_argument_group("contenders")
    option(contenders, "--n-samplers", 10, 1, "samplers of one environment, and environments of SB3's VecEnvs")
    text = "environments of each sampler in the second configuration, which has one sampler a CPU"
    option(contenders, "--envs-per-sampler", 8, 1, text)
    text = "leave out SubprocVecEnv, which is slow to start and slow to step"
    contenders.add_argument("--skip-subproc", action="store_true", help=text)

    text = "which update ours makes"
    add_option(contenders, "--learner", "compiled", text, choices=LEARNERS, metavar="{" + ",".join(LEARNERS) + "}")

    work = parser.add_argument_group("work of PPO")
    option(work, "--samples-per-iteration", 20480, 2, "environment steps of an iteration, all environments together")
    option(work, "--n-epochs", 10, 1, "passes over the samples of an iteration")
    option(work, "--batch-size", 64, 2, "samples of a minibatch")

    measuring = parser.add_argument_group("measuring")
    parts = {**PARTS, "slow": f"{REPLAY_PARTS['slow']} (off-policy)"}
    text = "what to measure: " + "; ".join(f"{part}: {meaning}" for part, meaning in parts.items()) + " (default: all)"
    names = "{" + ",".join(parts) + "}"
    measuring.add_argument("--parts", help=text, nargs="+", choices=parts, metavar=names)
    option(measuring, "--repeats", 3, 1, "times to measure everything")
    option(measuring, "--iterations", 3, 1, "iterations of each measurement, after one to warm up")
    text = "CSV file for every single measurement; with --learning, directory for the results"
    measuring.add_argument("--out", type=Path, metavar="PATH", help=text)

    text = "For returns at equal steps, with more options, see 'sb3-walle returns'."
    learning = parser.add_argument_group("learning curves", text)
    text = "train ours (pipelined and free) and SB3's; plot returns against steps and minutes"
    learning.add_argument("--learning", action="store_true", help=text)
    text = (
        "environment steps of each run, all environments together (default: 300000; DQN 50000, others off-policy 10000)"
    )
    add_option(learning, "--timesteps", None, text, type=integer(1), metavar="N")
    option(learning, "--seeds", 5, 1, "runs of each contender, with the seeds 0, 1, 2, ...")

    off_policy = parser.add_argument_group("work of off-policy algorithms")
    text = "units of each hidden layer, for all contenders (default: SB3's)"
    off_policy.add_argument("--net-arch", help=text, nargs="+", type=integer(1), metavar="N")


def run_command(arguments: argparse.Namespace) -> int:
    """
    Measure as the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    if arguments.algo == "ppo" and arguments.net_arch is not None:
        from sb3_walle.experiments.environments import UsageError

        raise UsageError("--net-arch is for off-policy algorithms: --algo sac, td3, ddpg or dqn")
    if arguments.learning:
        return compare_learning(arguments)
    return measure(arguments) if arguments.algo == "ppo" else measure_off_policy(arguments)


def measure_off_policy(arguments: argparse.Namespace) -> int:
    """
    Measure the speed of an off-policy algorithm, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.replay_benchmark.run import run_replay_benchmark
    from sb3_walle.experiments.replay_benchmark.settings import ReplaySettings

    settings = ReplaySettings(
        env_id=arguments.env,
        algorithm=arguments.algo,
        n_samplers=arguments.n_samplers,
        repeats=arguments.repeats,
        learner=arguments.learner,
        skip_subproc=arguments.skip_subproc,
        parts=checked_parts(arguments, REPLAY_PARTS),
        arguments=off_policy_arguments(arguments),
    )
    print(run_replay_benchmark(settings, arguments.out))
    if arguments.out is not None:
        print(f"Every single measurement is in {arguments.out}")
    return 0


def checked_parts(arguments: argparse.Namespace, known: Mapping[str, str]) -> tuple[str, ...]:
    """
    :param arguments: the parsed command line
    :param known: what can be measured of the algorithm
    :return: what to measure
    :raises UsageError: if that is something else
    """
    from sb3_walle.experiments.environments import UsageError

    parts = tuple(known) if arguments.parts is None else tuple(arguments.parts)
    for part in parts:
        if part not in known:
            raise UsageError(f"'{part}' is not measured of {arguments.algo}, but {', '.join(known)}")
    return parts


def compare_learning(arguments: argparse.Namespace) -> int:
    """
    Train whom the arguments say, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.returns.comparison import compare_returns
    from sb3_walle.experiments.returns.ppo import PPOReturns
    from sb3_walle.experiments.returns.replay import ReplayReturns

    algorithm, steps = arguments.algo, arguments.timesteps
    common: dict[str, Any] = {
        "env_id": arguments.env,
        "total_timesteps": steps or LEARNING_STEPS.get(algorithm, OTHER_LEARNING_STEPS),
        "n_seeds": arguments.seeds,
        "n_samplers": arguments.n_samplers,
        "modes": ("pipelined", "free"),
        "n_bins": LEARNING_BINS,
    }
    if algorithm == "ppo":
        n_steps = max(1, arguments.samples_per_iteration // arguments.n_samplers)
        ppo = {"n_steps": n_steps, "batch_size": arguments.batch_size, "n_epochs": arguments.n_epochs}
        return report_outcome(compare_returns(PPOReturns(**common, ppo=ppo), arguments.out))
    settings = ReplayReturns(**common, algorithm=algorithm, arguments=off_policy_arguments(arguments))
    return report_outcome(compare_returns(settings, arguments.out))


def off_policy_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    :param arguments: the parsed command line
    :return: what it says of the algorithm's arguments
    """
    return {} if arguments.net_arch is None else {"policy_kwargs": {"net_arch": arguments.net_arch}}


def measure(arguments: argparse.Namespace) -> int:
    """
    Measure speed, start and memory, and print the report.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.benchmark.report import format_report, write_csv
    from sb3_walle.experiments.benchmark.run import run_benchmark
    from sb3_walle.experiments.benchmark.settings import BenchmarkSettings

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
        learner=arguments.learner,
        parts=checked_parts(arguments, PARTS),
    )
    results = run_benchmark(settings)
    print(format_report(results))
    if arguments.out is not None:
        write_csv(results, arguments.out)
        print(f"Every single measurement is in {arguments.out}")
    return 0
