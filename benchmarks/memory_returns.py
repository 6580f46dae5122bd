"""
``python -m benchmarks.memory_returns``: returns of RecurrentPPO of sb3-contrib and of ours, at equal steps.

Tasks that need memory: CartPole without velocities, and Pendulum without its velocity. The hyperparameters are those of
RL Baselines3 Zoo for them. Leaves a directory with returns.csv, report.md and figures; with ``--out`` and the same
directory, the command continues.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch as th
from sb3_contrib import RecurrentPPO

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.memory_envs import PENDULUM_WITHOUT_VELOCITY, POLE_WITHOUT_VELOCITIES
from benchmarks.returns.comparison import compare_returns, show_outcome
from benchmarks.returns.ppo_returns import as_json
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle import AsyncRecurrentPPO
from sb3_walle.cli.arguments import MODES, Parser, add_option, integer, run_command_line, set_command
from sb3_walle.cli.hyperparameter_choice import in_words

POLICY = "MlpLstmPolicy"
LSTM: dict[str, Any] = {"lstm_hidden_size": 64, "ortho_init": False, "enable_critic_lstm": True}


@dataclass(frozen=True)
class MemoryTask:
    """
    :param env_id: Gymnasium id of an environment that needs memory
    :param n_envs: environments of every contender
    :param arguments: of RecurrentPPO
    :param normalize: whether observations and rewards are normalised
    """

    env_id: str
    n_envs: int
    arguments: Mapping[str, Any]
    normalize: bool = False


# The Zoo's for CartPoleNoVel-v1, with a constant learning rate and without normalisation.
POLE: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "learning_rate": 5e-4,
    "policy_kwargs": LSTM,
}
# The Zoo's for PendulumNoVel-v1.
PENDULUM: dict[str, Any] = {
    "n_steps": 1024,
    "n_epochs": 10,
    "gae_lambda": 0.95,
    "gamma": 0.9,
    "learning_rate": 1e-3,
    "use_sde": True,
    "sde_sample_freq": 4,
    "policy_kwargs": {**LSTM, "activation_fn": th.nn.ReLU, "net_arch": {"pi": [64], "vf": [64]}},
}
TASKS = {
    "cartpole": MemoryTask(POLE_WITHOUT_VELOCITIES, 8, POLE),
    "pendulum": MemoryTask(PENDULUM_WITHOUT_VELOCITY, 4, PENDULUM, normalize=True),
}


@dataclass(frozen=True)
class MemoryReturns(ReturnsSettings):
    """
    AsyncRecurrentPPO and sb3-contrib's RecurrentPPO.

    :param arguments: of both
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)

    # Beside any other process, an LSTM's update is many times slower with two.
    n_threads: ClassVar[int | None] = 1

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of RecurrentPPO alone"""
        return as_json(self.arguments)

    def algorithm_in_words(self) -> list[str]:
        """:return: how RecurrentPPO is set, in lines"""
        return [in_words(self.arguments)]

    def trainees(self) -> tuple[Trainee, ...]:
        """:return: sb3-contrib's RecurrentPPO, and AsyncRecurrentPPO in each of its modes"""
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=RecurrentPPO, policy=POLICY)
        ours = AsyncContender(self.n_samplers, self.envs_per_sampler, algorithm=AsyncRecurrentPPO, policy=POLICY)
        arguments = dict(self.arguments)
        if self.normalize:
            arguments["normalize"] = {"gamma": arguments["gamma"]}
        return self.trainees_of(lockstep, ours, arguments, {})


def run_command(arguments: argparse.Namespace) -> int:
    task = TASKS[arguments.task]
    settings = MemoryReturns(
        task.env_id,
        arguments.timesteps,
        arguments.seeds,
        arguments.n_samplers,
        max(1, task.n_envs // arguments.n_samplers),
        tuple(arguments.modes),
        task.normalize,
        arguments=task.arguments,
    )
    return show_outcome(compare_returns(settings, arguments.out))


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.memory_returns", description=__doc__.partition("\n\n")[2])
    set_command(parser, run_command)
    text = "CartPole or Pendulum, without velocities (default: cartpole)"
    parser.add_argument("task", help=text, nargs="?", default="cartpole", choices=TASKS)
    text = "environment steps of each run, all environments together"
    add_option(parser, "--timesteps", 100_000, text, type=integer(1))
    add_option(parser, "--seeds", 5, "runs of each contender, with the seeds 0, 1, 2, ...", type=integer(2))
    add_option(parser, "--n-samplers", 2, "samplers of ours, for the Zoo's 8 or 4 environments", type=integer(1))
    text = "modes of ours, each of them a contender (default: sync pipelined)"
    parser.add_argument("--modes", default=["sync", "pipelined"], help=text, nargs="+", choices=MODES)
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(parser, "--out", None, text, type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
