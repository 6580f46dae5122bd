"""
``python -m benchmarks.vectorized``: what samplers with vectorised environments collect.

EnvPool's HalfCheetah in two samplers, against a loop that does nothing but step a pool with as many threads, and
against SB3's PPO over EnvPool; Gymnasium's vectorised CartPole against SB3's PPO with a ``DummyVecEnv``. The contenders
take turns. Needs ``pip install envpool``.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from benchmarks.machine import describe_machine
from benchmarks.pools import pool
from benchmarks.speed.measurements import Found, Medians
from benchmarks.text_tables import format_number
from sb3_walle import AsyncPPO
from sb3_walle.cli.arguments import Parser, add_option, integer, run_command_line, set_command
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

CHEETAH, POLE = "HalfCheetah-v4, steps/s", "CartPole-v1, steps/s"
BARE_LOOP, SB3_POOL, OURS_POOL = "bare loop over EnvPool", "PPO, EnvPool", "AsyncPPO, EnvPool"
SB3_POLES, OURS_POLES = "PPO, DummyVecEnv", "AsyncPPO, CartPoleVectorEnv"
#: what ours is compared with, and how many times as fast it should be
BARS = {CHEETAH: (OURS_POOL, {BARE_LOOP: 0.9, SB3_POOL: 2.5}), POLE: (OURS_POLES, {SB3_POLES: 4.0})}


@dataclass(frozen=True)
class Settings:
    """
    How much is measured.

    :param n_envs: environments of every contender
    :param n_samplers: samplers of ours, and threads of a pool that one process steps
    :param n_steps: steps of each environment in a rollout
    :param rollouts: rollouts of a measurement, after as many that do not count
    """

    n_envs: int = 16
    n_samplers: int = 2
    n_steps: int = 512
    rollouts: int = 3

    @property
    def arguments(self) -> dict[str, Any]:
        batch_size = self.n_envs * self.n_steps
        return {"n_steps": self.n_steps, "batch_size": batch_size, "n_epochs": 1, "device": "cpu", "seed": 0}

    @property
    def samplers(self) -> dict[str, Any]:
        each = self.n_envs // self.n_samplers
        return {"n_samplers": self.n_samplers, "envs_per_sampler": each, "mode": "pipelined", "learner": "eager"}

    @property
    def stopwatch(self) -> Stopwatch:
        n_steps = self.rollouts * self.n_steps * self.n_envs
        return Stopwatch(n_steps, n_steps)


def poles(n_envs: int) -> gym.vector.VectorEnv:
    return gym.make_vec("CartPole-v1", num_envs=n_envs, vectorization_mode="vector_entry_point")


class PoolVecEnv(VecEnv):
    """A pool as SB3 takes it, after the adapter in EnvPool's own examples."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        super().__init__(pool.num_envs, pool.observation_space, pool.action_space)

    def reset(self) -> np.ndarray:
        return self.pool.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.pool.send(actions)

    def step_wait(self) -> Any:
        observations, rewards, ends, cuts, _ = self.pool.recv()
        dones = ends | cuts
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        rows = np.flatnonzero(dones)
        if len(rows):
            for row in rows:
                infos[row] = {"terminal_observation": observations[row].copy(), "TimeLimit.truncated": bool(cuts[row])}
            observations[rows] = self.pool.reset(rows.astype(np.int32))[0]
        return observations, rewards, dones, infos

    def close(self) -> None:
        self.pool.close()

    def seed(self, seed: int | None = None) -> list[None]:
        # Pools are seeded when they are built.
        return [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self.pool, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False] * self.num_envs


def measure_bare_loop(settings: Settings) -> float:
    """:return: steps a second of a pool that gets actions which are there already"""
    env = pool(settings.n_envs, settings.n_samplers)
    actions = np.random.default_rng(0).uniform(-1, 1, (settings.n_steps, settings.n_envs, 6))
    env.reset()
    started = time.perf_counter()
    for rollout in range(2 * settings.rollouts):
        if rollout == settings.rollouts:
            started = time.perf_counter()
        for some in actions:
            _, _, ends, cuts, _ = env.step(some)
            dones = ends | cuts
            if dones.any():
                env.reset(np.flatnonzero(dones).astype(np.int32))
    seconds = time.perf_counter() - started
    env.close()
    return settings.rollouts * settings.n_steps * settings.n_envs / seconds


def collected(build: Callable[[], Any], settings: Settings) -> float:
    """:return: steps a second of an algorithm that only collects"""
    with leaving_nothing(build) as model:
        stop_updates(model)
        return measure(model, settings.stopwatch)


def measure_once(settings: Settings) -> Iterator[Found]:
    """:return: what every contender collects"""
    arguments, samplers = settings.arguments, settings.samplers
    n_envs, n_threads = settings.n_envs, settings.n_samplers
    one_sampler = {"n_samplers": 1, "envs_per_sampler": n_envs}
    yield CHEETAH, BARE_LOOP, measure_bare_loop(settings)
    contenders: dict[tuple[str, str], Callable[[], Any]] = {
        (CHEETAH, OURS_POOL): lambda: AsyncPPO("MlpPolicy", pool, **samplers, **arguments),
        (CHEETAH, SB3_POOL): lambda: PPO("MlpPolicy", VecMonitor(PoolVecEnv(pool(n_envs, n_threads))), **arguments),
        # They take so little that a second sampler would take more than it brings.
        (POLE, OURS_POLES): lambda: AsyncPPO("MlpPolicy", poles, **{**samplers, **one_sampler}, **arguments),
        (POLE, SB3_POLES): lambda: PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs), **arguments),
    }
    for (quantity, contender), build in contenders.items():
        yield quantity, contender, collected(build, settings)


def report(medians: Medians) -> str:
    """:return: a table of each environment: the steps, and how ours compare"""
    tables = []
    for quantity, (ours, bars) in BARS.items():
        rates = medians.of(quantity)
        rows = [
            [name, format_number(rate), *_comparison(rates[ours], rate, bars.get(name))] for name, rate in rates.items()
        ]
        tables.append(format_table(["", quantity, "ours / this", "bar"], rows))
    return "\n\n".join(tables)


def _comparison(ours: float, rate: float, bar: float | None) -> tuple[str, str]:
    return format_ratio(ours, rate), "" if bar is None else f"{bar:.1f}x"


def run_command(arguments: argparse.Namespace) -> int:
    settings = Settings(arguments.n_envs, arguments.n_samplers, arguments.n_steps, arguments.rollouts)
    machine = describe_machine()
    found = [number for _ in range(arguments.repeats) for number in measure_once(settings)]
    print(f"Collection {machine.in_words()}\n{settings}\n\n{report(Medians(found))}")
    return 0


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.vectorized", description=__doc__.partition("\n\n")[2])
    set_command(parser, run_command)
    defaults = Settings()
    add_option(parser, "--n-envs", defaults.n_envs, "environments of every contender", type=integer(1))
    add_option(parser, "--n-samplers", defaults.n_samplers, "samplers, and threads of a pool", type=integer(1))
    add_option(parser, "--n-steps", defaults.n_steps, "steps of each environment in a rollout", type=integer(2))
    add_option(parser, "--rollouts", defaults.rollouts, "rollouts of a measurement", type=integer(1))
    add_option(parser, "--repeats", 3, "times to measure everything", type=integer(1))
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
