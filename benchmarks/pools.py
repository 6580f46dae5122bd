"""EnvPool's environments, where they are installed."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.contenders import AsyncContender

N_ACTIONS = 512
SECONDS = 2.0


def has_envpool() -> bool:
    return find_spec("envpool") is not None


def pool(n_envs: int, n_threads: int = 1, seed: int = 0, env_id: str = "HalfCheetah-v4") -> Any:
    """:return: environments of a pool"""
    import envpool

    with warnings.catch_warnings():
        # That its spaces are of another precision than their bounds.
        warnings.simplefilter("ignore")
        return envpool.make(env_id, env_type="gymnasium", num_envs=n_envs, num_threads=n_threads, seed=seed)


def pool_of(n_envs: int, env_id: str) -> Any:
    return pool(n_envs, env_id=env_id)


@dataclass(frozen=True)
class EnvPoolContender(AsyncContender):
    """One of our algorithms whose samplers step a pool each, with one thread."""

    @property
    def name(self) -> str:
        return f"{super().name}, EnvPool"

    def env(self, env_id: str) -> Callable[[int], Any]:
        return partial(pool_of, env_id=env_id)


def pool_seconds(env_id: str, n_envs: int) -> float:
    """:return: CPU seconds that a step of one environment takes in a loop that does nothing else"""
    env = pool(n_envs, env_id=env_id)
    space = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (N_ACTIONS, n_envs, *space.shape))
    env.reset()
    n_steps, began, started = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < SECONDS:
        for some in actions:
            _, _, ends, cuts, _ = env.step(some)
            dones = ends | cuts
            if dones.any():
                env.reset(np.flatnonzero(dones).astype(np.int32))
        n_steps += N_ACTIONS
    seconds = time.process_time() - started
    env.close()
    return seconds / (n_steps * n_envs)
