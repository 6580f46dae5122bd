"""The modes by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.first_come import FirstComePlacement
from sb3_walle.collection.free import FreeCollector
from sb3_walle.collection.ordered import OrderedCollector
from sb3_walle.collection.queues import QueueCapacity
from sb3_walle.collection.realtime import RealtimeCollector
from sb3_walle.collection.stream_placement import StreamPlacement
from sb3_walle.collection.task import CollectionTask
from sb3_walle.collection.whole_episodes import EpisodeCollector
from sb3_walle.samplers.actors.protocol import ActorSpec

MODES = ("pipelined", "sync", "free")
# Environments are plants, which never wait. Not one of the others: it takes another kind of environment.
REALTIME = "realtime"
# Of the modes in which it is fixed.
POLICY_LAGS = {"sync": 0, "pipelined": 1}
# Of mode "free": what a sampler has not delivered when its policy gets too old may be lost, about one chunk of these.
MIN_CHUNKS = 8
# How many rollouts samplers may be ahead if their policy may be of any age.
N_ROLLOUTS_WITHOUT_BOUND = 2


def check_mode(mode: str, max_policy_lag: int | None, algorithm: str, supported: Sequence[str] = MODES) -> None:
    """
    Check the user's choices against the modes that an algorithm can learn in.

    :raises ValueError: if there is no such mode, the algorithm cannot learn in it, or it has no such bound
    """
    if mode == REALTIME:
        _check_realtime(max_policy_lag, algorithm, supported)
        return
    if mode not in MODES:
        raise ValueError(f"mode must be one of {tuple(supported)}, got {mode!r}")
    if mode not in supported and len(supported) > 1:
        raise ValueError(f"{algorithm} cannot learn in mode={mode!r}. Its modes are {tuple(supported)}.")
    if mode not in supported:
        raise ValueError(
            f"{algorithm} cannot learn in mode={mode!r}: its update takes for granted that the policy that it changes "
            "is the one that chose the actions, and does not correct for a policy lag. "
            f"Use mode={supported[0]!r}, which is its default, or an algorithm that corrects for it, such as AsyncPPO."
        )
    if max_policy_lag is None:
        return
    if mode != "free":
        remedy = "Use it with mode='free', or leave it out." if "free" in supported else "Leave it out."
        raise ValueError(
            f"max_policy_lag={max_policy_lag} was given with mode={mode!r}, whose policy lag is fixed "
            f"({POLICY_LAGS[mode]}). {remedy}"
        )
    if max_policy_lag < 1:
        raise ValueError(f"max_policy_lag must be at least 1, got {max_policy_lag}. For a lag of 0, use mode='sync'.")


def _check_realtime(max_policy_lag: int | None, algorithm: str, supported: Sequence[str]) -> None:
    if REALTIME not in supported:
        raise ValueError(
            f"{algorithm} cannot learn in mode='realtime': it learns only from whole rollouts of its present policy, "
            "and would have the plant wait between them. Use an off-policy algorithm: AsyncSAC, AsyncTD3, AsyncDDPG, "
            "AsyncDQN or AsyncTQC."
        )
    if max_policy_lag is not None:
        raise ValueError(
            f"max_policy_lag={max_policy_lag} was given with mode='realtime', in which samplers take over each policy "
            "at the tick after it is published, and never wait for one. Leave it out."
        )


def make_collector(
    mode: str,
    max_policy_lag: int | None,
    samplers: SamplerClient,
    task: CollectionTask,
    actors: list[ActorSpec],
    weights: Mapping[str, np.ndarray],
) -> Collector:
    """
    :param mode: one of ``MODES``, or ``REALTIME``
    :param max_policy_lag: bound for ``"free"``, ``None`` for none
    :param actors: the spec of each sampler's actor
    :param weights: the policy's weights, for their shapes and types
    :return: a collector that works in that mode
    """
    capacity = queue_capacity(mode, max_policy_lag)
    if task.episodes is not None:
        return EpisodeCollector(samplers, task, actors, weights, capacity)
    if mode in POLICY_LAGS:
        return OrderedCollector(samplers, task, actors, weights, capacity)
    if task.realtime is not None:
        return RealtimeCollector(samplers, task, actors, weights, capacity)
    shape = (samplers.n_samplers, task.envs_per_sampler, task.n_steps)
    placement = (
        FirstComePlacement(*shape, max_policy_lag)
        if task.streams is None
        else StreamPlacement(*shape, task.streams, max_policy_lag)
    )
    return FreeCollector(samplers, task, actors, weights, capacity, placement)


def queue_capacity(mode: str, max_policy_lag: int | None) -> QueueCapacity:
    """What a mode asks of the experience queue."""
    if mode in POLICY_LAGS:
        return QueueCapacity(n_rollouts=1 + POLICY_LAGS[mode])
    return QueueCapacity(n_rollouts=max_policy_lag or N_ROLLOUTS_WITHOUT_BOUND, min_chunks=MIN_CHUNKS)
