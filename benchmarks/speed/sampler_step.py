"""What a sampler's step takes beside the environment's own."""

import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym

from benchmarks.contenders import policy_for
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.text_tables import format_number
from sb3_walle import AsyncPPO
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.tables import format_table
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

N_STEPS = 4096
TOTAL, ENVIRONMENT = "microseconds a step", "of which the environment"


class TimedEnv(gym.Wrapper):
    """Adds up the seconds that an environment works for."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.seconds = 0.0

    def step(self, action: Any) -> Any:
        started = time.perf_counter()
        result = self.env.step(action)
        self.seconds += time.perf_counter() - started
        return result

    def reset(self, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = self.env.reset(**kwargs)
        self.seconds += time.perf_counter() - started
        return result


def measure_sampler_steps(settings: PPOSpeed) -> Iterator[Found]:
    """:return: what steps of samplers with one and with several environments take"""
    for n_envs in dict.fromkeys((1, settings.envs_per_sampler)):
        total, environment = measure_sampler_step(settings.env_id, n_envs)
        name = "1 environment" if n_envs == 1 else f"{n_envs} environments"
        yield TOTAL, name, total
        yield ENVIRONMENT, name, environment


def measure_sampler_step(env_id: str, n_envs: int) -> tuple[float, float]:
    """
    Collect a rollout with one sampler in this process.

    :param n_envs: environments of the sampler
    :return: microseconds of a step of one environment, and how many of them the environment takes with Gymnasium's own
        wrappers
    """
    build, envs = quiet_factory(env_id), []

    def timed() -> gym.Env:
        envs.append(TimedEnv(build()))
        return envs[-1]

    def restart() -> None:
        for env in envs:
            env.seconds = 0.0

    n_steps = max(2, N_STEPS // n_envs)
    arguments: dict[str, Any] = {"n_steps": n_steps, "batch_size": n_steps * n_envs, "device": "cpu"}
    samplers: dict[str, Any] = {"envs_per_sampler": n_envs, "backend": "inline", "mode": "sync", "learner": "eager"}
    with leaving_nothing(lambda: AsyncPPO(policy_for(env_id), timed, n_samplers=1, **samplers, **arguments)) as model:
        stop_updates(model)
        rollout = n_steps * n_envs
        measure(model, Stopwatch(rollout, rollout, restart))
        assert model._experience.collector is not None
        total = 1 / model._experience.collector.statistics.sampler_steps_per_second
    return 1e6 * total, 1e6 * sum(env.seconds for env in envs) / rollout


def sampler_table(medians: Medians) -> str:
    """:param medians: what steps take"""
    rows = []
    for name, total in medians.of(TOTAL).items():
        environment = medians.of(ENVIRONMENT)[name]
        rows.append([name, *(format_number(value, 1) for value in (total, environment, total - environment))])
    return format_table([TOTAL, "total", "environment", "sampler"], rows)
