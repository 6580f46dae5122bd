"""Steps a second of whole training runs with one learner and with several."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

import gymnasium as gym
import torch as th

from benchmarks.slow_envs import ElsewhereEnv
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle import AsyncPPO, AsyncSAC
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.tables import format_ratio
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure

NLearners: TypeAlias = Any
CHEETAH = "HalfCheetah-v4"
# An environment that waits for another machine, or for a robot.
STEP_LATENCY = 5e-3


@dataclass(frozen=True)
class Case:
    """
    :param make: makes a model with so many learners
    :param n_learners: the values that are compared; the first one is the measure
    :param warm_up: environment steps until programs are there and gradient workers are ready
    :param n_steps: environment steps that are measured
    """

    make: Callable[[NLearners], Any]
    n_learners: tuple[NLearners, ...]
    warm_up: int
    n_steps: int


def zoo_ppo(n_learners: NLearners) -> AsyncPPO:
    """The RL Zoo's setting of HalfCheetah."""
    return AsyncPPO(
        "MlpPolicy",
        quiet_factory(CHEETAH),
        n_samplers=1,
        mode="sync",
        n_steps=512,
        batch_size=64,
        n_epochs=20,
        normalize=True,
        policy_kwargs={"net_arch": [256, 256], "activation_fn": th.nn.ReLU},
        learner="compiled",
        n_learners=n_learners,
        device="cpu",
    )


def small_ppo(n_learners: NLearners) -> AsyncPPO:
    """SB3's own setting, with its networks of 64x64 and minibatches of 64."""
    env = quiet_factory(CHEETAH)
    return AsyncPPO("MlpPolicy", env, n_samplers=1, learner="compiled", n_learners=n_learners, device="cpu")


def slow_sac(n_learners: NLearners) -> AsyncSAC:
    """As many gradient steps as steps of environments, which wait."""
    env = functools.partial(_elsewhere, CHEETAH)
    return AsyncSAC(
        "MlpPolicy",
        env,
        n_samplers=10,
        train_freq=1,
        gradient_steps=-1,
        learning_starts=200,
        buffer_size=100_000,
        learner="compiled",
        n_learners=n_learners,
        device="cpu",
    )


CASES = {
    "PPO, 256x256 at 64": Case(zoo_ppo, (1, 2), warm_up=8 * 512, n_steps=12 * 512),
    "SAC, 256x256 at 256": Case(slow_sac, (1, 2), warm_up=1_500, n_steps=3_000),
    "PPO, 64x64 at 64": Case(small_ppo, (1, "auto"), warm_up=2 * 2048, n_steps=8 * 2048),
}


def training_rates(name: str, n_rounds: int) -> Iterator[tuple[NLearners, float]]:
    """Environment steps a second of alternating runs."""
    case = CASES[name]
    for _ in range(n_rounds):
        for n_learners in case.n_learners:
            with leaving_nothing(functools.partial(case.make, n_learners)) as model:
                yield n_learners, measure(model, Stopwatch(case.warm_up, case.n_steps))


def rates_table(names: list[str], n_rounds: int) -> str:
    rows = []
    for name in names:
        rates: dict[NLearners, list[float]] = {}
        for n_learners, rate in training_rates(name, n_rounds):
            rates.setdefault(n_learners, []).append(rate)
        (_, one), (several, found) = ((key, median(values)) for key, values in rates.items())
        rows.append([name, format_number(one), f"{several}", format_number(found), format_ratio(found, one)])
    return format_markdown_table(["steps/s", "n_learners=1", "n_learners", "steps/s", "faster"], rows)


def _elsewhere(env_id: str) -> gym.Env:
    return ElsewhereEnv(quiet_factory(env_id)(), STEP_LATENCY)
