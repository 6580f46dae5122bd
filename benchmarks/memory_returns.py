"""
``python -m benchmarks.memory_returns``: returns of RecurrentPPO of sb3-contrib and of ours, at equal steps.

A task that needs memory: CartPole without velocities. The hyperparameters are those of RL Baselines3 Zoo for it. Leaves
a directory with returns.csv, report.md and figures; with ``--out`` and the same directory, the command continues.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sb3_contrib import RecurrentPPO

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.memory_envs import POLE_WITHOUT_VELOCITIES
from benchmarks.returns.comparison import compare_returns
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle import AsyncRecurrentPPO
from sb3_walle.cli.arguments import INTERRUPTED, MODES, Parser, add_option, integer, run_command_line, set_command

POLICY = "MlpLstmPolicy"
# The Zoo's for CartPoleNoVel-v1, with a constant learning rate.
ARGUMENTS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "learning_rate": 5e-4,
    "policy_kwargs": {"lstm_hidden_size": 64, "ortho_init": False, "enable_critic_lstm": True},
}


@dataclass(frozen=True)
class MemoryReturns(ReturnsSettings):
    """AsyncRecurrentPPO and sb3-contrib's RecurrentPPO."""

    # Beside any other process, an LSTM's update is many times slower with two.
    n_threads: ClassVar[int | None] = 1

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of RecurrentPPO alone"""
        return ARGUMENTS

    def algorithm_in_words(self) -> list[str]:
        """:return: how RecurrentPPO is set, in lines"""
        return [", ".join(f"{name}={value}" for name, value in ARGUMENTS.items())]

    def trainees(self) -> tuple[Trainee, ...]:
        """:return: sb3-contrib's RecurrentPPO, and AsyncRecurrentPPO in each of its modes"""
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=RecurrentPPO, policy=POLICY)
        ours = AsyncContender(self.n_samplers, self.envs_per_sampler, algorithm=AsyncRecurrentPPO, policy=POLICY)
        return self.trainees_of(lockstep, ours, ARGUMENTS, {})


def run_command(arguments: argparse.Namespace) -> int:
    settings = MemoryReturns(
        POLE_WITHOUT_VELOCITIES,
        arguments.timesteps,
        arguments.seeds,
        arguments.n_samplers,
        arguments.envs_per_sampler,
        tuple(arguments.modes),
    )
    outcome = compare_returns(settings, arguments.out)
    print(outcome.report)
    return INTERRUPTED if outcome.interrupted else 0


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.memory_returns", description=__doc__.partition("\n\n")[2])
    set_command(parser, run_command)
    text = "environment steps of each run, all environments together"
    add_option(parser, "--timesteps", 100_000, text, type=integer(1))
    add_option(parser, "--seeds", 5, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    add_option(parser, "--n-samplers", 2, "samplers of ours", type=integer(1))
    add_option(parser, "--envs-per-sampler", 4, "environments of each", type=integer(1))
    text = "modes of ours, each of them a contender (default: pipelined free)"
    parser.add_argument("--modes", default=["pipelined", "free"], help=text, nargs="+", choices=MODES)
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(parser, "--out", None, text, type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
