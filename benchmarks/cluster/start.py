"""How long it takes to start on a running cluster of two nodes, and how much memory samplers take there."""

import functools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.contenders import BACKENDS, RAY, create_async_ppo
from benchmarks.cluster.local_cluster import LocalCluster, host_of
from benchmarks.speed.measurements import Found
from benchmarks.speed.start_up import End, descendants, in_fresh_process, proportional_set_size
from sb3_walle.backends.ray import RayBackend
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.throughput import leaving_nothing

START, FURTHER = "constructor to first rollout, s", "each further sampler, MB"
# SB3 refuses rollouts of one sample.
N_STEPS = 2


def measure_start(settings: ClusterSettings) -> Iterator[Found]:
    """:return: seconds to start, and memory of samplers, on each backend"""
    short = replace(settings, n_steps=N_STEPS)
    twice = replace(short, n_samplers=2 * settings.n_samplers)
    with closing(LocalCluster(n_nodes=2)) as cluster:
        raylets = [cluster.raylet(index) for index in range(2)]
        for name, backend in {**BACKENDS, RAY: RayBackend(address=cluster.address)}.items():
            seconds, memory = in_fresh_process(name, start_in_process, short, backend, raylets)
            _, memory_of_twice = in_fresh_process(name, start_in_process, twice, backend, raylets)
            yield START, name, seconds
            yield FURTHER, name, 1e-6 * (memory_of_twice - memory) / settings.n_samplers


def start_in_process(
    settings: ClusterSettings, backend: str | RayBackend, raylets: Sequence[int], results: Connection
) -> None:
    """
    Start samplers from this process, which should have done nothing else before.

    :param raylets: processes of the cluster's nodes
    :param results: where to send the seconds from the constructor to the end of a short rollout, and the bytes of
        memory (PSS) of all processes that run samplers
    """
    make_env = quiet_factory(settings.env_id)
    start = time.perf_counter()
    with leaving_nothing(functools.partial(create_async_ppo, settings, make_env, backend)) as model:
        with suppress(End.Reached):
            model.learn(settings.rollout, callback=End(with_update=False))
        seconds = time.perf_counter() - start
        if isinstance(backend, RayBackend):
            hosts = {host_of(raylet) for raylet in raylets}
            running = hosts.union(*map(descendants, hosts))
        else:
            running = descendants(os.getpid())
        results.send((seconds, proportional_set_size(running)))
