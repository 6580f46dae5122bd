"""What an algorithm asks of its samplers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import plan_queues
from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.collection.task import CollectionTask
from sb3_walle.envs.normalization import Normalization
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.infos import InfoSelection


@dataclass(frozen=True)
class CollectionSpec:
    """
    What samplers collect, and how.

    :param actor: which actors these are, ``"numpy"`` or ``"torch"``
    :param actors: the spec of each sampler's actor
    :param weights: what is published first
    """

    actor: str
    actors: list[ActorSpec]
    task: CollectionTask
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class CollectionRequest:
    """
    What decides, beside the algorithm of SB3 itself, how a collector is made.

    :param n_steps: steps of each environment in a rollout
    :param max_policy_lag: ``None`` for the mode's own bound
    :param actor: what the user asked for
    :param seed: seed of the samplers' random streams, ``None`` for fresh entropy
    :param n_collectors: how many collectors were made from this seed before
    :param realtime: in mode ``"realtime"``, how samplers act
    """

    env: WrappedSamplers
    n_steps: int
    mode: str
    max_policy_lag: int | None
    actor: str
    infos: InfoSelection
    check_finite: bool
    seed: int | None
    n_collectors: int
    realtime: RealtimeSettings | None = None

    @property
    def n_samplers(self) -> int:
        return self.env.vec_env.n_samplers

    @property
    def shares_random_state(self) -> bool:
        """Whether the one sampler and the learner, which waits for it, draw what SB3's one process draws."""
        return self.mode == "sync" and self.n_samplers == 1

    def task(self, squash_output: bool, streams: StreamRules | None = None) -> CollectionTask:
        """:return: what the collector collects; see :class:`~sb3_walle.collection.task.CollectionTask`"""
        vec_normalize = self.env.vec_normalize
        return CollectionTask(
            self.env.observation_space,
            self.env.vec_env.envs_per_sampler,
            self.n_steps,
            squash_output,
            self.env.layers,
            None if vec_normalize is None else Normalization(vec_normalize),
            self.infos,
            self.check_finite,
            streams,
            realtime=self.realtime,
        )

    def check_memory(self, spec: CollectionSpec) -> None:
        """:raises MemoryError: if there is too little memory for the queues"""
        capacity = queue_capacity(self.mode, self.max_policy_lag)
        plan_queues(spec.task, self.n_samplers, capacity, spec.actors[0], spec.weights).check_memory()

    def make_collector(self, spec: CollectionSpec) -> Collector:
        """:return: a collector, with the samplers ready for it"""
        client = self.env.vec_env.client
        return make_collector(self.mode, self.max_policy_lag, client, spec.task, spec.actors, spec.weights)

    def summary(self, spec: CollectionSpec) -> str:
        """:return: one line for the user"""
        return (
            f"Collecting with {self.n_samplers} samplers, environments of each: {self.env.vec_env.envs_per_sampler}, "
            f"mode: {self.mode}, actor: {spec.actor}"
        )
