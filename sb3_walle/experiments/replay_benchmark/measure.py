"""Measurements of off-policy algorithms."""

import time
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.experiments import contenders
from sb3_walle.experiments.contenders import Trainee
from sb3_walle.experiments.environments import check_environment
from sb3_walle.experiments.off_policy_algorithms import ALGORITHMS
from sb3_walle.experiments.replay_benchmark.settings import ReplaySettings
from sb3_walle.experiments.slow_envs import ElsewhereEnv

# What a replay buffer is filled with to measure an update, and how many gradient steps that takes.
N_STORED, N_UPDATES = 2_000, 40


def running(trainee: Trainee, settings: ReplaySettings, **arguments: Any) -> AbstractContextManager[OffPolicyAlgorithm]:
    """
    Build an algorithm, and leave nothing of it behind at the end of the block.

    :param trainee: what to build
    :param settings: what to measure
    :param arguments: further arguments of the algorithm
    :return: the algorithm
    """
    common = {"train_freq": 1, "seed": 0, "buffer_size": 100_000}
    # SB3 adds to dictionaries that it is given.
    everything = deepcopy({**common, **trainee.arguments, **settings.arguments, **arguments})
    return contenders.running(trainee.contender, settings.env_id, trainee.mode, **everything)


class StepClock(BaseCallback):
    """
    Measures how long a number of steps takes, and ends ``learn()`` after them.

    :param first: steps that do not count
    :param n_steps: steps that do
    """

    def __init__(self, first: int, n_steps: int) -> None:
        super().__init__()
        self._first, self._last = first, first + n_steps
        self._began: tuple[int, float] | None = None
        #: steps per second, all environments together
        self.rate = float("nan")

    def _on_step(self) -> bool:
        now = time.perf_counter()
        if self._began is None:
            if self.num_timesteps >= self._first:
                self._began = self.num_timesteps, now
            return True
        if self.num_timesteps < self._last:
            return True
        self.rate = (self.num_timesteps - self._began[0]) / (now - self._began[1])
        return False


def measure_training(trainee: Trainee, settings: ReplaySettings, gradient_steps: int) -> float:
    """
    :param trainee: who trains
    :param settings: what to measure
    :param gradient_steps: the algorithm's
    :return: environment steps per second, once updates are made
    """
    learning_starts = settings.warm_up // 2
    arguments = {"gradient_steps": gradient_steps, "learning_starts": learning_starts}
    with running(trainee, settings, **arguments) as model:
        clock = StepClock(settings.warm_up, settings.steps)
        # More than needed: what is measured must not be the end of a training.
        model.learn(4 * (settings.warm_up + settings.steps), callback=clock, log_interval=10**9)
    return clock.rate


def measure_collection(trainee: Trainee, settings: ReplaySettings) -> float:
    """
    :param trainee: who collects
    :param settings: what to measure
    :return: environment steps per second of policy actions, without any update
    """
    with running(trainee, settings, gradient_steps=0, learning_starts=0) as model:
        clock = StepClock(settings.warm_up, 5 * settings.steps)
        model.learn(10 * (settings.warm_up + settings.steps), callback=clock, log_interval=10**9)
    return clock.rate


def measure_updates(settings: ReplaySettings) -> tuple[float, float]:
    """
    Make updates by turns with SB3's own ``train()`` and with ours, on one thread.

    :param settings: what to measure
    :return: milliseconds of a gradient step of each
    """
    n_threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        by_sb3, by_us = (filled(algorithm, settings) for algorithm in ALGORITHMS[settings.algorithm])
        for model in (by_sb3, by_us):
            # Allocates, and waits for the compiler.
            model.train(10, model.batch_size)
        return _milliseconds(by_sb3), _milliseconds(by_us)
    finally:
        th.set_num_threads(n_threads)


def _milliseconds(model: OffPolicyAlgorithm) -> float:
    started = time.perf_counter()
    model.train(N_UPDATES, model.batch_size)
    return 1e3 * (time.perf_counter() - started) / N_UPDATES


def filled(algorithm: type[OffPolicyAlgorithm], settings: ReplaySettings) -> OffPolicyAlgorithm:
    """
    :param algorithm: an algorithm, SB3's or ours
    :param settings: what to measure
    :return: the algorithm with noise in its replay buffer, ready to make updates
    """
    env = ElsewhereEnv(check_environment(settings.env_id), 0.0)
    is_ours = algorithm is ALGORITHMS[settings.algorithm][1]
    further: dict[str, Any] = {"n_samplers": 1, "backend": "inline", "learner": settings.learner} if is_ours else {}
    kind: Any = algorithm
    model: OffPolicyAlgorithm = kind(
        "MlpPolicy",
        env,
        device="cpu",
        buffer_size=2 * N_STORED,
        seed=0,
        **deepcopy(dict(settings.arguments)),
        **further,
    )
    model.set_logger(Logger(None, []))
    random, buffer = np.random.default_rng(0), model.replay_buffer
    assert buffer is not None and isinstance(buffer.observations, np.ndarray)
    for array in (buffer.observations, buffer.next_observations, buffer.rewards):
        array[:N_STORED] = random.normal(size=array[:N_STORED].shape)
    buffer.actions[:N_STORED] = _random_actions(env.action_space, random, buffer.actions[:N_STORED].shape)
    buffer.pos = N_STORED
    return model


def _random_actions(space: spaces.Space, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(space, spaces.Discrete):
        return random.integers(int(space.n), size=shape)
    return random.uniform(-1.0, 1.0, shape)
