"""Environments whose steps take their time, as those of robots and of simulators in other processes do."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

# Observations of which there is nothing to learn, but that differ.
N_OBSERVATIONS = 64
EPISODE_STEPS = 1000


def wait_until(due: float) -> None:
    """
    Wait, without work for the CPU.

    :param due: until when, in terms of ``time.perf_counter()``
    """
    time.sleep(max(0.0, due - time.perf_counter()))


class SlowEnv(gym.Wrapper):
    """
    Answers a step no sooner than a certain time after it was asked for. What the environment itself takes is part of
    that time.

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
        wait_until(due)
        return result


class ElsewhereEnv(gym.Env):
    """
    Looks like another environment whose steps only take time, as if another machine simulated it. Episodes are cut off
    after 1,000 steps.

    :param env: the other environment
    :param step_latency: seconds of a step
    """

    def __init__(self, env: gym.Env, step_latency: float) -> None:
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._step_latency, self._n_steps = step_latency, 0
        self.observation_space.seed(0)
        self._observations = [np.asarray(self.observation_space.sample()) for _ in range(N_OBSERVATIONS)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Begin an episode.

        :param seed: seed of nothing that shows
        :param options: without effect
        :return: an observation and no info
        """
        super().reset(seed=seed)
        self._n_steps = 0
        return self._observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        Wait.

        :param action: of no effect
        :return: another observation, and the same reward as ever
        """
        due = time.perf_counter() + self._step_latency
        self._n_steps += 1
        wait_until(due)
        return self._observations[self._n_steps % N_OBSERVATIONS], 1.0, False, self._n_steps >= EPISODE_STEPS, {}


@dataclass(frozen=True)
class Slowness:
    """
    How slow environments are, and why.

    :param step_latency: seconds that a step takes at least
    :param elsewhere: whether they have nothing to do but to wait
    """

    step_latency: float
    elsewhere: bool = False

    def factory(self, factory: Callable[[], gym.Env]) -> "SlowFactory":
        """
        :param factory: builds an environment
        :return: what builds a slow one
        """
        return SlowFactory(factory, self)


@dataclass(frozen=True)
class SlowFactory:
    """
    Builds a slow environment.

    :param original: builds the environment itself
    :param slowness: how slow it becomes
    """

    original: Callable[[], gym.Env]
    slowness: Slowness

    def __call__(self) -> gym.Env:
        env = self.original()
        if not self.slowness.elsewhere:
            return SlowEnv(env, self.slowness.step_latency)
        env.close()
        return ElsewhereEnv(env, self.slowness.step_latency)
