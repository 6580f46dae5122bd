"""
``python -m benchmarks.memory_and_masks``: RecurrentPPO and MaskablePPO of sb3-contrib, and ours.

An LSTM policy on CartPole without velocities, and a policy with masks on ``InvalidActionEnvDiscrete``: steps a second
while they only collect, and while they train. Theirs has its environments in a ``DummyVecEnv`` and in a
``SubprocVecEnv``. The contenders take turns. Needs ``pip install sb3-contrib``.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from benchmarks.machine import describe_machine
from benchmarks.memory_envs import POLE_WITHOUT_VELOCITIES
from benchmarks.speed.measurements import Found, Medians
from benchmarks.text_tables import format_number
from sb3_walle import AsyncMaskablePPO, AsyncRecurrentPPO
from sb3_walle.cli.arguments import Parser, add_option, integer, run_command_line, set_command
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

MODES = ("pipelined", "sync")
VEC_ENVS: tuple[type[VecEnv], ...] = (DummyVecEnv, SubprocVecEnv)
COLLECTING, TRAINING = "collecting, steps/s", "training, steps/s"
# How many times as fast ours should be as the better of theirs.
BARS = {COLLECTING: 2.5, TRAINING: 1.0}


@dataclass(frozen=True)
class Task:
    """
    :param theirs: the algorithm of sb3-contrib
    :param ours: the same with samplers
    :param env: builds an environment
    """

    theirs: Any
    ours: Any
    policy: str
    env: Callable[[], gym.Env]


def pole() -> gym.Env:
    return gym.make(POLE_WITHOUT_VELOCITIES)


def masked() -> gym.Env:
    return InvalidActionEnvDiscrete(dim=80, n_invalid_actions=60)


TASKS = {
    "RecurrentPPO": Task(RecurrentPPO, AsyncRecurrentPPO, "MlpLstmPolicy", pole),
    "MaskablePPO": Task(MaskablePPO, AsyncMaskablePPO, "MlpPolicy", masked),
}


@dataclass(frozen=True)
class Settings:
    """
    How much is measured.

    :param n_envs: environments of every contender
    :param n_samplers: samplers of ours
    :param n_steps: steps of each environment in a rollout
    :param collected: rollouts of a measurement of collection, after as many that do not count
    :param trained: rollouts of a measurement of training, after one that does not count
    :param algorithms: those to measure
    """

    n_envs: int = 8
    n_samplers: int = 2
    n_steps: int = 128
    collected: int = 12
    trained: int = 3
    algorithms: tuple[str, ...] = tuple(TASKS)

    @property
    def arguments(self) -> dict[str, Any]:
        # The minibatches of RecurrentPPO's defaults, for both.
        return {"n_steps": self.n_steps, "batch_size": 128, "device": "cpu", "seed": 0}

    def samplers(self, mode: str) -> dict[str, Any]:
        """:return: arguments of ours"""
        each = self.n_envs // self.n_samplers
        # What measures is a callback that samplers do not know. It looks at no info.
        return {"n_samplers": self.n_samplers, "envs_per_sampler": each, "mode": mode, "info_keys": ()}

    def stopwatch(self, quantity: str) -> Stopwatch:
        rollout = self.n_steps * self.n_envs
        if quantity == COLLECTING:
            return Stopwatch(self.collected * rollout, self.collected * rollout)
        return Stopwatch(rollout, self.trained * rollout)


def contenders(task: Task, settings: Settings) -> dict[str, Callable[[], Any]]:
    """:return: how to build each contender, by its name"""
    arguments = settings.arguments
    theirs = {
        f"{task.theirs.__name__}, {vec_env.__name__}": lambda vec_env=vec_env: task.theirs(
            task.policy, make_vec_env(task.env, settings.n_envs, vec_env_cls=vec_env), **arguments
        )
        for vec_env in VEC_ENVS
    }
    ours = {
        f"{task.ours.__name__}, {mode}": lambda mode=mode: task.ours(
            task.policy, task.env, **settings.samplers(mode), **arguments
        )
        for mode in MODES
    }
    return {**theirs, **ours}


def measure_once(settings: Settings) -> Iterator[Found]:
    """:return: steps a second of every contender"""
    for task in (TASKS[algorithm] for algorithm in settings.algorithms):
        for quantity in BARS:
            for name, build in contenders(task, settings).items():
                with leaving_nothing(build) as model:
                    if quantity == COLLECTING:
                        stop_updates(model)
                    yield quantity, name, measure(model, settings.stopwatch(quantity))


def report(medians: Medians, algorithms: Sequence[str] = tuple(TASKS)) -> str:
    """:return: a table of each algorithm and quantity: the steps, and how they compare with the better of theirs"""
    tables = []
    for algorithm in algorithms:
        task = TASKS[algorithm]
        for quantity, bar in BARS.items():
            names = (task.theirs.__name__, task.ours.__name__)
            rates = {name: rate for name, rate in medians.of(quantity).items() if name.startswith(names)}
            best = max(rate for name, rate in rates.items() if name.startswith(task.theirs.__name__))
            rows = [[name, format_number(rate), format_ratio(rate, best)] for name, rate in rates.items()]
            table = format_table(["", quantity, "this / better VecEnv"], rows)
            tables.append(f"{algorithm}, {quantity} (bar of ours: {bar:.1f}x)\n\n{table}")
    return "\n\n".join(tables)


def run_command(arguments: argparse.Namespace) -> int:
    settings = Settings(
        arguments.n_envs,
        arguments.n_samplers,
        arguments.n_steps,
        arguments.collected,
        arguments.trained,
        tuple(arguments.algorithms),
    )
    machine = describe_machine()
    found = [number for _ in range(arguments.repeats) for number in measure_once(settings)]
    print(f"LSTM policies and action masks {machine.in_words()}\n{settings}\n")
    print(report(Medians(found), settings.algorithms))
    return 0


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.memory_and_masks", description=__doc__.partition("\n\n")[2])
    set_command(parser, run_command)
    defaults = Settings()
    add_option(parser, "--n-envs", defaults.n_envs, "environments of every contender", type=integer(1))
    add_option(parser, "--n-samplers", defaults.n_samplers, "samplers of ours", type=integer(1))
    add_option(parser, "--n-steps", defaults.n_steps, "steps of each environment in a rollout", type=integer(2))
    add_option(parser, "--collected", defaults.collected, "rollouts of a measurement of collection", type=integer(1))
    add_option(parser, "--trained", defaults.trained, "rollouts of a measurement of training", type=integer(1))
    text = "algorithms of sb3-contrib to measure (default: both)"
    parser.add_argument("--algorithms", default=list(TASKS), help=text, nargs="+", choices=TASKS)
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
