"""Sharing the machine's cores between torch and the samplers."""

import contextlib
from collections.abc import Iterator

import torch as th

from sb3_walle.envs.env_sources import available_cpus


@contextlib.contextmanager
def torch_threads_beside(n_samplers: int) -> Iterator[None]:
    """
    Have torch use no more threads than the samplers leave cores, for as long as they are at work.

    torch's threads wait for each other at the end of every operation. If one of them shares its core with a sampler,
    all wait for it: with two threads on two busy cores, an update of a small network can take three times as long as
    with one.

    :param n_samplers: number of samplers at work, 0 for none
    """
    n_threads = th.get_num_threads()
    left = max(1, available_cpus() - n_samplers)
    if n_samplers == 0 or left >= n_threads:
        yield
        return
    th.set_num_threads(left)
    try:
        yield
    finally:
        th.set_num_threads(n_threads)
