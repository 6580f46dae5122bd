"""The queues between a host and the samplers of its node."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sb3_walle.transport.control import CONTROL_NBYTES, MemoryControl, MemoryControlBoard
from sb3_walle.transport.experience_queue import ExperienceGeometry, ExperienceWriter
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.memory import Memory
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.policy_queue import PolicyQueue, PolicyReader, policy_queue_nbytes
from sb3_walle.transport.ports import SamplerQueues
from sb3_walle.transport.shared_memory import SharedMemory


@dataclass(frozen=True)
class OneSamplerEnd:
    """
    The end of one sampler.

    :param weights: layout of what the policy queue publishes
    :param geometry: where the sampler's slots lie
    :param policy: memory of the policy queue
    :param control: memory of the control board
    :param chunks: memory of the sampler's slots
    """

    weights: Layout
    geometry: ExperienceGeometry
    policy: Memory
    control: Memory
    chunks: Memory

    def open(self, sampler: int) -> SamplerQueues:
        """
        :param sampler: not used: there is one
        :return: its end
        """
        return SamplerQueues(
            PolicyReader(self.weights, self.policy),
            MemoryControl(self.control),
            ExperienceWriter(self.geometry, self.chunks, 0),
        )


class HostQueues:
    """
    One policy queue and one control board for all samplers of the node, and slots for each as soon as it needs them.

    :param plan: how large the learner's queues are
    :raises MemoryError: if there is too little memory on the node
    """

    def __init__(self, plan: QueuePlan) -> None:
        self._plan = plan
        self._geometry = replace(plan.geometry, n_samplers=1)
        self._policy_memory = SharedMemory(policy_queue_nbytes(plan.weights))
        self._control_memory = SharedMemory(CONTROL_NBYTES)
        self.policy = PolicyQueue(plan.weights, self._policy_memory)
        self.control = MemoryControlBoard(self._control_memory)
        self._chunks: dict[int, SharedMemory] = {}
        rewards = next(field for field in plan.geometry.layout.fields if field.name == "rewards")
        #: environments of each sampler
        self.n_envs_per_sampler = rewards.shape[1]

    def end_of(self, sampler: int) -> OneSamplerEnd:
        """
        :param sampler: number of a sampler
        :return: its end
        """
        if sampler not in self._chunks:
            self._chunks[sampler] = SharedMemory(self._geometry.nbytes)
        return OneSamplerEnd(
            self._plan.weights, self._geometry, self._policy_memory, self._control_memory, self._chunks[sampler]
        )

    def slot(self, sampler: int, slot: int) -> np.ndarray:
        """
        :param sampler: number of a sampler
        :param slot: index of one of its slots
        :return: the bytes in it; a view, not a copy
        """
        return np.frombuffer(self._geometry.slot(self._chunks[sampler].view, 0, slot), np.uint8)

    def publish(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """
        :param version: policy version
        :param weights: the arrays by name
        """
        self.policy.publish(version, weights)
        self.control.announce(version)
