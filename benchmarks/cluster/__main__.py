"""``python -m benchmarks.cluster``"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.machine import describe_machine
from benchmarks.slow_envs import ElsewhereEnv
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.start_up import End
from benchmarks.text_tables import format_number
from sb3_walle import AsyncPPO
from sb3_walle.backends.ray import RayBackend
from sb3_walle.cli.arguments import Parser, UsageError, add_env, add_option, integer, run_command_line, set_command
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

PROCESS, RAY, REMOTE_STEPS = 'AsyncPPO, backend="process"', 'AsyncPPO, backend="ray"', "PPO, a remote call a step"
COLLECTION, WAITING, START = "collection, steps/s", "steps that wait 5 ms, steps/s", "constructor to first rollout, s"
STEP_LATENCY = 5e-3
N_STEPS = 256


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.cluster",
        description="Measure samplers on a Ray cluster beside samplers in processes of this machine, and beside an\n"
        "environment that makes a remote call for each step. The contenders take turns; the report has\n"
        "medians over the repeats.",
    )
    set_command(parser, run_command)
    add_env(parser)
    add_option(parser, "--n-samplers", 10, "samplers", type=integer(1))
    add_option(parser, "--address", None, "address of a cluster (default: the one of this machine, or a new one)")
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    try:
        import ray
    except ImportError as error:
        raise UsageError('this needs Ray: pip install ".[ray]"') from error
    machine = describe_machine()
    # One connection for all: starting Ray is not what is measured.
    ray.init(address=arguments.address, log_to_driver=False)
    found = []
    for repeat in range(1, arguments.repeats + 1):
        for quantity, contender, value in measure_all(arguments.env, arguments.n_samplers):
            print(f"[{repeat}/{arguments.repeats}] {quantity}: {contender}: {format_number(value)}", file=sys.stderr)
            found.append((quantity, contender, value))
    medians = Medians(found)
    print(f"{arguments.env}, {arguments.n_samplers} samplers, {machine.in_words()}")
    for quantity in medians.quantities:
        values = medians.of(quantity)
        rows = [
            [name, f"{value:,.0f}" if value > 100 else f"{value:.2f}", format_ratio(value, values[PROCESS])]
            for name, value in values.items()
        ]
        print("\n" + format_table([quantity, "", "vs process"], rows))
    return 0


def measure_all(env_id: str, n_samplers: int) -> Iterator[Found]:
    """:return: all quantities of all contenders, once"""
    simulated = quiet_factory(env_id)
    waiting = functools.partial(elsewhere, env_id)
    for name, create in contenders(n_samplers).items():
        if name != REMOTE_STEPS:
            yield START, name, seconds_to_first_rollout(functools.partial(create, simulated))
        n_rollouts = 15 if name == REMOTE_STEPS else 60
        yield COLLECTION, name, collection_rate(functools.partial(create, simulated), n_rollouts * N_STEPS * n_samplers)
        yield WAITING, name, collection_rate(functools.partial(create, waiting), 4 * N_STEPS * n_samplers)


def contenders(n_samplers: int) -> dict[str, Callable[[Callable[[], gym.Env]], BaseAlgorithm]]:
    """:return: by name, what makes an algorithm from a function that makes an environment"""

    def on_samplers(backend: str | RayBackend, make_env: Callable[[], gym.Env]) -> AsyncPPO:
        return AsyncPPO(
            "MlpPolicy",
            make_env,
            n_samplers=n_samplers,
            n_steps=N_STEPS,
            learner="eager",
            backend=backend,
            device="cpu",
        )

    def with_remote_steps(make_env: Callable[[], gym.Env]) -> PPO:
        from benchmarks.cluster.remote_step_env import RemoteStepVecEnv

        return PPO("MlpPolicy", RemoteStepVecEnv([make_env] * n_samplers), n_steps=N_STEPS, device="cpu")

    return {
        PROCESS: functools.partial(on_samplers, "process"),
        RAY: functools.partial(on_samplers, "ray"),
        REMOTE_STEPS: with_remote_steps,
    }


def elsewhere(env_id: str) -> gym.Env:
    """:return: an environment that looks like another one, and only waits"""
    return ElsewhereEnv(quiet_factory(env_id)(), STEP_LATENCY)


def collection_rate(create: Callable[[], BaseAlgorithm], n_steps: int) -> float:
    """:return: environment steps per second, without updates"""
    with leaving_nothing(create) as model:
        stop_updates(model)
        return measure(model, Stopwatch(warm_up=N_STEPS, n_steps=n_steps))


def seconds_to_first_rollout(create: Callable[[], BaseAlgorithm]) -> float:
    """:return: from the constructor to the end of a short rollout"""
    start = time.perf_counter()
    with leaving_nothing(create) as model:
        with suppress(End.Reached):
            model.learn(1, callback=End(with_update=False))
        return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
