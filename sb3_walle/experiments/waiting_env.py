"""Environments that take their time, as robots and simulators in other processes do."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym


class WaitingEnv(gym.Wrapper):
    """
    Answers a step no sooner than a certain time after it was asked for. What the environment itself takes is part of
    that time: only what is left of it is waited, without work for the CPU.

    :param env: the environment
    :param step_latency: seconds
    """

    def __init__(self, env: gym.Env, step_latency: float) -> None:
        super().__init__(env)
        self._step_latency = step_latency

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        Take a step, and wait.

        :param action: the action
        :return: what the environment returns
        """
        due = time.perf_counter() + self._step_latency
        result = self.env.step(action)
        time.sleep(max(0.0, due - time.perf_counter()))
        return result


@dataclass(frozen=True)
class WaitingFactory:
    """
    Builds an environment that waits.

    :param factory: builds the environment itself
    :param step_latency: seconds that each of its steps takes at least
    """

    factory: Callable[[], gym.Env]
    step_latency: float

    def __call__(self) -> gym.Env:
        return WaitingEnv(self.factory(), self.step_latency)
