"""How long an environment takes for a step, as its sampler finds it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, ClassVar

import gymnasium as gym

from sb3_walle.samplers.monitor import write_no_files
from sb3_walle.samplers.requests import Request
from sb3_walle.samplers.sampler import Sampler

MOST_STEPS = 2_000
# Drawing an action can take longer than a step.
N_ACTIONS = 100


@dataclass(frozen=True)
class StepTime:
    """
    What a step of one environment takes, with its share of the resets between episodes.

    :param seconds: from its beginning to its end
    :param cpu_seconds: of the sampler's process, which may wait for another one or for a device in between
    """

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class MeasureStep(Request):
    """
    Step the first environment with random actions. It writes no monitor files from then on.

    :param seconds: for how long, but for at least one step
    """

    seconds: float
    summary: ClassVar[str] = "measuring how long its environment takes"

    def run(self, sampler: Sampler) -> StepTime:
        env = sampler.envs.envs[0]
        write_no_files(env)
        steps = _steps(env, cycle([env.action_space.sample() for _ in range(N_ACTIONS)]))
        next(steps)
        started, cpu_started, n_steps = time.perf_counter(), time.process_time(), 0
        while n_steps < MOST_STEPS and (n_steps == 0 or time.perf_counter() - started < self.seconds):
            next(steps)
            n_steps += 1
        return StepTime(
            (time.perf_counter() - started) / n_steps,
            (time.process_time() - cpu_started) / n_steps,
        )


def _steps(env: gym.Env, actions: Iterator[Any]) -> Iterator[None]:
    """Steps an environment each time it is asked for the next one, and resets it where an episode has ended."""
    env.reset()
    for action in actions:
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        yield
