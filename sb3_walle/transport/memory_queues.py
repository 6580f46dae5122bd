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
    """The samplers' end, a :class:`SamplerEnd`: what lies in which memory."""

    plan: QueuePlan
    policy: Memory
    control: Memory
    chunks: Memory

    def open(self, sampler: int) -> SamplerQueues:
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
    policy, control, chunks = map(allocate, (policy_queue_nbytes(plan.weights), CONTROL_NBYTES, plan.geometry.nbytes))
    return LearnerQueues(
        PolicyQueue(plan.weights, policy),
        MemoryControlBoard(control),
        ExperienceQueue(plan.geometry, chunks),
        MemorySamplerEnd(plan, policy, control, chunks),
    )
