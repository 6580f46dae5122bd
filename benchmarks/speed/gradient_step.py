"""How long a gradient step of an off-policy algorithm takes."""

import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.slow_envs import ElsewhereEnv
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.off_policy_speed import OffPolicySpeed
from benchmarks.text_tables import format_number
from sb3_walle.cli.algorithms import algorithm_class, sb3_class
from sb3_walle.cli.environments import check_environment
from sb3_walle.cli.tables import format_ratio, format_table

MILLISECONDS = "ms on one thread"
SB3S, OURS = "SB3", "ours"
# What a replay buffer is filled with, and how many gradient steps are measured.
N_STORED, N_UPDATES = 2_000, 40


def measure_gradient_steps(settings: OffPolicySpeed) -> Iterator[Found]:
    """
    Make updates by turns with SB3's own ``train()`` and with ours.

    :return: what a gradient step of each takes
    """
    n_threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        kinds = sb3_class(settings.algorithm), algorithm_class(settings.algorithm)
        models = [filled(kind, settings) for kind in kinds]
        for model in models:
            # Allocates, and waits for the compiler.
            model.train(10, model.batch_size)
        for name, model in zip((SB3S, OURS), models, strict=True):
            yield MILLISECONDS, name, _milliseconds(model)
    finally:
        th.set_num_threads(n_threads)


def gradient_step_table(medians: Medians) -> str:
    """:param medians: what gradient steps take"""
    values = medians.of(MILLISECONDS)
    rows = [[name, format_number(value, 2), format_ratio(values[SB3S], value)] for name, value in values.items()]
    return format_table(["", "milliseconds", "times as fast"], rows)


def _milliseconds(model: OffPolicyAlgorithm) -> float:
    started = time.perf_counter()
    model.train(N_UPDATES, model.batch_size)
    return 1e3 * (time.perf_counter() - started) / N_UPDATES


def filled(algorithm: type[BaseAlgorithm], settings: OffPolicySpeed) -> OffPolicyAlgorithm:
    """
    :param algorithm: an algorithm, SB3's or ours
    :return: the algorithm with noise in its replay buffer, ready to make updates
    """
    env = ElsewhereEnv(check_environment(settings.env_id), 0.0)
    is_ours = algorithm is algorithm_class(settings.algorithm)
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
