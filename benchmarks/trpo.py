"""
``python -m benchmarks.trpo``: how fast TRPO trains with samplers.

AsyncTRPO in both of its modes against sb3-contrib's TRPO with a ``DummyVecEnv`` of as many environments, end to end:
collection and updates. The contenders take turns. Needs ``pip install sb3-contrib``.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sb3_contrib import TRPO

from benchmarks.contenders import AsyncContender, Mode, Trainee, VecEnvContender
from benchmarks.machine import describe_machine
from benchmarks.speed.measurements import Found, Medians
from benchmarks.text_tables import format_number
from sb3_walle import AsyncTRPO
from sb3_walle.cli.arguments import LEARNERS, Parser, add_option, integer, run_command_line, set_command
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import Stopwatch, measure

STEPS_PER_SECOND = "steps/s"
#: how many times as fast as sb3-contrib's each mode should be
BARS: dict[Mode, float] = {"sync": 2.5, "pipelined": 3.5}


@dataclass(frozen=True)
class Settings:
    """
    How much is measured.

    :param n_samplers: samplers of ours
    :param n_envs: environments of every contender
    :param samples_per_iteration: environment steps of an iteration, all environments together
    :param iterations: iterations of a measurement, after one that does not count
    :param learner: which update ours makes
    """

    env_id: str = "HalfCheetah-v4"
    n_samplers: int = 10
    n_envs: int = 10
    samples_per_iteration: int = 20_000
    iterations: int = 2
    learner: str = "compiled"

    @property
    def trainees(self) -> list[Trainee]:
        """sb3-contrib's first, and then ours in each mode."""
        arguments: dict[str, Any] = {"n_steps": self.samples_per_iteration // self.n_envs, "seed": 0}
        theirs = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=TRPO, library="sb3-contrib's")
        ours = AsyncContender(self.n_samplers, self.n_envs // self.n_samplers, self.learner, algorithm=AsyncTRPO)
        # What measures is a callback that samplers do not know. It looks at no info.
        of_ours = [Trainee(f"{ours.name}, {mode}", ours, mode, {**arguments, "info_keys": ()}) for mode in BARS]
        return [Trainee(theirs.name, theirs, "sync", arguments), *of_ours]


def measure_once(settings: Settings) -> Iterator[Found]:
    """:return: the steps a second of every contender while it trains"""
    for trainee in settings.trainees:
        # The first update may wait for a compiler.
        stopwatch = Stopwatch(2 * settings.samples_per_iteration, settings.iterations * settings.samples_per_iteration)
        with trainee.running(settings.env_id) as model:
            yield STEPS_PER_SECOND, trainee.name, measure(model, stopwatch)


def report(medians: Medians) -> str:
    """:return: a table of the steps, and how many times as fast ours are"""
    rates = medians.of(STEPS_PER_SECOND)
    (name, theirs), *ours = rates.items()
    rows = [[name, format_number(theirs), "", ""]]
    rows += [
        [name, format_number(rate), format_ratio(rate, theirs), f"{bar:.1f}x"]
        for (name, rate), bar in zip(ours, BARS.values(), strict=True)
    ]
    return format_table(["", STEPS_PER_SECOND, f"vs {name}", "bar"], rows)


def run_command(arguments: argparse.Namespace) -> int:
    settings = Settings(
        arguments.env,
        arguments.n_samplers,
        arguments.n_envs,
        arguments.samples_per_iteration,
        arguments.iterations,
        arguments.learner,
    )
    machine = describe_machine()
    found = [number for _ in range(arguments.repeats) for number in measure_once(settings)]
    print(f"Training {machine.in_words()}\n{settings}\n\n{report(Medians(found))}")
    return 0


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.trpo", description=__doc__.partition("\n\n")[2])
    set_command(parser, run_command)
    defaults = Settings()
    parser.add_argument(
        "env", metavar="ENV", nargs="?", default=defaults.env_id, help="Gymnasium id of the environment"
    )
    add_option(parser, "--n-samplers", defaults.n_samplers, "samplers of ours", type=integer(1))
    add_option(parser, "--n-envs", defaults.n_envs, "environments of every contender", type=integer(1))
    text = "environment steps of an iteration, all environments together"
    add_option(parser, "--samples-per-iteration", defaults.samples_per_iteration, text, type=integer(2))
    add_option(parser, "--iterations", defaults.iterations, "iterations of a measurement", type=integer(1))
    add_option(parser, "--learner", defaults.learner, "update of ours", choices=LEARNERS)
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
