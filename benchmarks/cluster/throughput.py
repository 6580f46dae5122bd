"""Steps per second of all contenders: while they collect, while they train, and by what has to be carried."""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.contenders import (
    BACKENDS,
    REMOTE_STEPS,
    create_async_ppo,
    create_ppo_with_remote_steps,
)
from benchmarks.cluster.rllib_contender import RLLIB, RLlibPPO
from benchmarks.cluster.wide_env import WideEnv
from benchmarks.slow_envs import ElsewhereEnv
from benchmarks.speed.measurements import Found
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

STEPS = "steps/s"
STEP_LATENCY = 5e-3
# Of one environment in a rollout: each rollout has one chunk of a sampler up to 128 steps, and then more.
ROLLOUT_STEPS = (4, 16, 64, 256)
# An image of 84 x 84 pixels in four colours, or frames.
WIDE_BYTES = 84 * 84 * 4
WIDE = f"observations of {WIDE_BYTES:,} bytes"


def measure_collection(settings: ClusterSettings) -> Iterator[Found]:
    """:return: what all contenders collect"""
    make_env = quiet_factory(settings.env_id)
    with connected(settings):
        for name, backend in BACKENDS.items():
            create = functools.partial(create_async_ppo, settings, make_env, backend)
            yield STEPS, name, collection_rate(create, settings.rollout, 60 * settings.rollout)
        remote_steps = functools.partial(create_ppo_with_remote_steps, settings, make_env)
        yield STEPS, REMOTE_STEPS, collection_rate(remote_steps, settings.rollout, 3 * settings.rollout)
        if settings.rllib:
            with closing(RLlibPPO(settings, make_env)) as rllib:
                yield STEPS, RLLIB, rllib.collection_rate(n_rollouts=6)


def measure_waiting(settings: ClusterSettings) -> Iterator[Found]:
    """:return: what contenders collect from environments that wait"""
    make_env = functools.partial(elsewhere, settings.env_id)
    with connected(settings):
        for name, backend in BACKENDS.items():
            create = functools.partial(create_async_ppo, settings, make_env, backend)
            yield STEPS, name, collection_rate(create, settings.rollout, 4 * settings.rollout)
        remote_steps = functools.partial(create_ppo_with_remote_steps, settings, make_env)
        yield STEPS, REMOTE_STEPS, collection_rate(remote_steps, settings.rollout, 2 * settings.rollout)


def measure_training(settings: ClusterSettings) -> Iterator[Found]:
    """:return: how fast contenders train"""
    make_env = quiet_factory(settings.env_id)
    # The first update may wait for a compiler.
    warm_up, n_steps = 2 * settings.rollout, 20 * settings.rollout
    with connected(settings):
        for name, backend in BACKENDS.items():
            with leaving_nothing(
                functools.partial(create_async_ppo, settings, make_env, backend, learner="compiled", mode="pipelined")
            ) as model:
                yield STEPS, name, measure(model, Stopwatch(warm_up, n_steps))
        if settings.rllib:
            with closing(RLlibPPO(settings, make_env)) as rllib:
                yield STEPS, RLLIB, rllib.training_rate(n_iterations=4)


def measure_sizes(settings: ClusterSettings) -> Iterator[Found]:
    """:return: what backends collect with short and long rollouts, and with large observations"""
    make_env = quiet_factory(settings.env_id)
    wide_env = functools.partial(WideEnv, WIDE_BYTES)
    with connected(settings):
        for n_steps in ROLLOUT_STEPS:
            for name, backend in BACKENDS.items():
                create = functools.partial(create_async_ppo, settings, make_env, backend, n_steps=n_steps)
                rate = collection_rate(create, 2000, 20 * settings.rollout)
                yield f"{n_steps} steps a rollout", name, rate
        for name, backend in BACKENDS.items():
            network = {"net_arch": [8]}
            create = functools.partial(create_async_ppo, settings, wide_env, backend, policy_kwargs=network)
            yield WIDE, name, collection_rate(create, settings.rollout, 6 * settings.rollout)


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Connect to the cluster, which takes time that no contender pays for."""
    import ray

    ray.init(address=settings.address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def elsewhere(env_id: str) -> gym.Env:
    """:return: an environment that looks like another one, and only waits"""
    return ElsewhereEnv(quiet_factory(env_id)(), STEP_LATENCY)


def collection_rate(create: Callable[[], BaseAlgorithm], warm_up: int, n_steps: int) -> float:
    """:return: environment steps per second, without updates"""
    with leaving_nothing(create) as model:
        stop_updates(model)
        return measure(model, Stopwatch(warm_up, n_steps))
