"""The learner's end of queues to samplers on other machines."""

import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import ray

from sb3_walle.backends.ray.link import Link
from sb3_walle.backends.ray.passing import HostQueuesEnd
from sb3_walle.transport.experience_queue import ExperienceQueue
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues

# As many as a policy queue keeps.
_N_KEPT = 2


class RayQueues:
    """
    Publishes to all hosts, and has the slots that chunks from them are copied into. One object is both the publisher
    of weights and the control board, since a new host has to catch up with both.

    :param number: number of these queues
    :param plan: how large they are
    :param links: gives the links to the hosts that there are
    """

    def __init__(self, number: int, plan: QueuePlan, links: Callable[[], Iterable[Link]]) -> None:
        self.number, self.plan, self._links = number, plan, links
        self._memory = PrivateMemory(plan.geometry.nbytes)
        self._publications: list[tuple[int, ray.ObjectRef]] = []
        self._run, self._chunk_seconds = 0, 0.0
        self._owner = os.getpid()
        #: bytes of weights that were sent to hosts
        self.n_weight_bytes = 0

    def learner_end(self) -> LearnerQueues:
        """:return: the learner's end"""
        chunks = ExperienceQueue(self.plan.geometry, self._memory)
        return LearnerQueues(self, self, chunks, HostQueuesEnd(self.number))

    def open_at(self, link: Link) -> None:
        """
        :param link: link to a host that has not got these queues yet
        """
        link.command("open_queues", self.number, self.plan)
        link.command("start_run", self.number, self._run)
        link.command("limit_chunks", self.number, self._chunk_seconds)
        for version, weights in self._publications:
            self._publish_at(link, version, weights)

    def fill(self, sampler: int, slot: int, contents: np.ndarray) -> None:
        """
        :param sampler: number of a sampler
        :param slot: index of the slot that it has filled
        :param contents: the bytes of that slot
        """
        np.frombuffer(self.plan.geometry.slot(self._memory.view, sampler, slot), np.uint8)[:] = contents

    # As sb3_walle.transport.ports.WeightPublisher

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        reference = ray.put(dict(weights))
        self._publications = [*self._publications, (version, reference)][-_N_KEPT:]
        for link in self._links():
            self._publish_at(link, version, reference)

    def _publish_at(self, link: Link, version: int, weights: "ray.ObjectRef") -> None:
        link.command("publish", self.number, version, weights)
        self.n_weight_bytes += self.plan.weights.nbytes

    # As sb3_walle.transport.ports.ControlBoard

    @property
    def run(self) -> int:
        return self._run

    def start_run(self) -> None:
        # The samplers are not those of a forked copy of the learner.
        if os.getpid() == self._owner:
            self._run += 1
            for link in self._links():
                link.command("start_run", self.number, self._run)

    def announce(self, version: int) -> None:
        """Hosts announce what they publish."""

    def limit_chunks(self, seconds: float) -> None:
        if seconds != self._chunk_seconds:
            self._chunk_seconds = seconds
            for link in self._links():
                link.command("limit_chunks", self.number, seconds)
