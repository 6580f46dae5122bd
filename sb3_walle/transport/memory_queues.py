"""The queues between a learner and its samplers over memory that both can reach."""

from collections.abc import Callable
from dataclasses import dataclass

from sb3_walle.transport.control import CONTROL_NBYTES, MemoryControl, MemoryControlBoard
from sb3_walle.transport.experience_queue import ExperienceGeometry, ExperienceQueue, ExperienceWriter
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.memory import Memory
from sb3_walle.transport.policy_queue import PolicyQueue, PolicyReader, policy_queue_nbytes
from sb3_walle.transport.ports import LearnerQueues, SamplerQueues


@dataclass(frozen=True)
class QueuePlan:
    """
    How large the queues are going to be. No memory is taken for it.

    :param weights: layout of what the policy queue publishes
    :param geometry: where the slots of the experience queue lie
    """

    weights: Layout
    geometry: ExperienceGeometry

    @property
    def nbytes(self) -> int:
        """Memory that all of it takes, in bytes."""
        return policy_queue_nbytes(self.weights) + CONTROL_NBYTES + self.geometry.nbytes


@dataclass(frozen=True)
class MemorySamplerEnd:
    """
    The samplers' end.

    :param plan: what lies in the memory
    :param policy: memory of the policy queue
    :param control: memory of the control board
    :param chunks: memory of the experience queue
    """

    plan: QueuePlan
    policy: Memory
    control: Memory
    chunks: Memory

    def open(self, sampler: int) -> SamplerQueues:
        """
        :param sampler: number of the sampler that opens it
        :return: its end
        """
        return SamplerQueues(
            PolicyReader(self.plan.weights, self.policy),
            MemoryControl(self.control),
            ExperienceWriter(self.plan.geometry, self.chunks, sampler),
        )


def open_queues(plan: QueuePlan, allocate: Callable[[int], Memory]) -> LearnerQueues:
    """
    :param plan: how large they are
    :param allocate: gives zeroed memory of so many bytes, which the samplers can reach
    :return: the learner's end
    :raises MemoryError: if there is too little memory
    """
    memories = MemorySamplerEnd(
        plan, allocate(policy_queue_nbytes(plan.weights)), allocate(CONTROL_NBYTES), allocate(plan.geometry.nbytes)
    )
    return LearnerQueues(
        PolicyQueue(plan.weights, memories.policy),
        MemoryControlBoard(memories.control),
        ExperienceQueue(plan.geometry, memories.chunks),
        memories,
    )
