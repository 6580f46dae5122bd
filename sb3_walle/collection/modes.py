"""The modes by name."""

from collections.abc import Callable, Mapping

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.collector import CollectionTask, Collector
from sb3_walle.collection.free import FreeCollector
from sb3_walle.collection.ordered import OrderedCollector
from sb3_walle.samplers.actors.protocol import ActorSpec

MODES = ("pipelined", "sync", "free")
DEFAULT_MAX_POLICY_LAG = 1


def check_mode(mode: str, max_policy_lag: int | None) -> None:
    """
    :param mode: what the user asked for
    :param max_policy_lag: likewise
    :raises ValueError: if there is no such mode, or it has no such bound
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if max_policy_lag is None:
        return
    if mode != "free":
        raise ValueError(
            f"max_policy_lag={max_policy_lag} was given with mode={mode!r}, whose policy lag is fixed "
            f"({0 if mode == 'sync' else 1}). Use it with mode='free', or leave it out."
        )
    if max_policy_lag < 1:
        raise ValueError(f"max_policy_lag must be at least 1, got {max_policy_lag}. For a lag of 0, use mode='sync'.")


def make_collector(
    mode: str,
    max_policy_lag: int | None,
    samplers: SamplerClient,
    task: CollectionTask,
    actors: list[ActorSpec],
    weights: Mapping[str, np.ndarray],
) -> Collector:
    """
    :param mode: one of ``MODES``
    :param max_policy_lag: bound for ``"free"``, ``None`` for the default
    :param samplers: the samplers
    :param task: what to collect
    :param actors: the spec of each sampler's actor
    :param weights: the policy's weights, for their shapes and types
    :return: a collector that works in that mode
    """
    constructors: dict[str, Callable[[], Collector]] = {
        "sync": lambda: OrderedCollector(samplers, task, actors, weights, policy_lag=0),
        "pipelined": lambda: OrderedCollector(samplers, task, actors, weights, policy_lag=1),
        "free": lambda: FreeCollector(samplers, task, actors, weights, max_policy_lag or DEFAULT_MAX_POLICY_LAG),
    }
    return constructors[mode]()
