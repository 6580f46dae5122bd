"""How large the queues between a learner and its samplers are, and into what chunks a rollout is divided."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sb3_walle.collection.task import CollectionTask
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.transport.available_memory import available_memory
from sb3_walle.transport.chunk import chunk_layout
from sb3_walle.transport.experience_queue import ExperienceGeometry
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.memory_queues import QueuePlan

# Short enough that callbacks hear of steps soon and a stopped sampler wastes little, long enough that what a chunk
# costs in addition to its steps (two messages, a look at the policy queue) is a small fraction of it.
MAX_CHUNK_STEPS = 128
# A mailbox holds some dozens of messages, and a sender that finds it full has to wait. So a long rollout is divided
# into longer chunks rather than into more of them.
MAX_CHUNKS_QUEUED = 64

#: what helps where memory is too small
REMEDY = "Use a smaller n_steps or target_steps, fewer samplers, or fewer environments of each sampler."
#: the same in mode "realtime"
REMEDY_FOR_RINGS = "Use smaller observations, or a lower control_hz."


@dataclass(frozen=True)
class QueueCapacity:
    """
    What a mode asks of the experience queue.

    :param n_rollouts: how many rollouts fit into it
    :param min_chunks: the least number of chunks that each sampler's share of a rollout is divided into
    """

    n_rollouts: int
    min_chunks: int = 1


@dataclass(frozen=True)
class CollectionPlan:
    """
    :param chunk_steps: lengths of the chunks that make up a sampler's share of a rollout
    :param queues: how large the queues are
    :param reason: what makes them so large, as in "n_steps=2048"
    :param remedy: what helps where memory is too small
    """

    chunk_steps: tuple[int, ...]
    queues: QueuePlan
    reason: str
    remedy: str

    def check_memory(self) -> None:
        """
        :raises MemoryError: if less memory is left than the queues take
        """
        left = available_memory()
        if self.queues.nbytes > left:
            raise MemoryError(
                f"Collecting with {self.queues.geometry.n_samplers} samplers and {self.reason} takes "
                f"{_in_words(self.queues.nbytes)} of memory, but only {_in_words(left)} are left. {self.remedy}"
            )


def plan_queues(
    task: CollectionTask, n_samplers: int, capacity: QueueCapacity, actor: ActorSpec, weights: Mapping[str, np.ndarray]
) -> CollectionPlan:
    """
    :param actor: the spec of any sampler's actor
    :param weights: the policy's weights, for their shapes and types
    :return: the queues that the task takes
    """
    if task.realtime is not None:
        return _plan_rings(task, n_samplers, actor, weights, task.realtime)
    longest = chunk_length(task.n_steps, capacity.n_rollouts, capacity.min_chunks)
    chunk_steps = tuple(min(longest, task.n_steps - start) for start in range(0, task.n_steps, longest))
    n_slots = capacity.n_rollouts * len(chunk_steps)
    geometry = ExperienceGeometry(_chunk_layout(task, actor, longest), n_samplers, n_slots)
    queues = QueuePlan(Layout.of({**weights, **task.published_statistics()}), geometry)
    return CollectionPlan(chunk_steps, queues, f"n_steps={task.n_steps}", REMEDY)


def _plan_rings(
    task: CollectionTask,
    n_samplers: int,
    actor: ActorSpec,
    weights: Mapping[str, np.ndarray],
    realtime: RealtimeSettings,
) -> CollectionPlan:
    """Slots of one step each, of which samplers take one after the other."""
    layout = _chunk_layout(task, actor, 1)
    stride = ExperienceGeometry(layout, n_samplers, 1).stride
    n_slots = realtime.n_ring_steps(stride)
    queues = QueuePlan(
        Layout.of({**weights, **task.published_statistics()}), ExperienceGeometry(layout, n_samplers, n_slots)
    )
    return CollectionPlan((1,), queues, f"{n_slots} steps that wait for the learner", REMEDY_FOR_RINGS)


def chunk_length(n_steps: int, n_rollouts_queued: int, min_chunks: int) -> int:
    """
    Length of the chunks that a sampler's share of a rollout is divided into.

    :param n_steps: steps of each environment in a rollout
    :param n_rollouts_queued: how many rollouts fit into the experience queue
    :param min_chunks: the least number of chunks, if it is that many steps
    """
    wanted = min(MAX_CHUNK_STEPS, math.ceil(n_steps / min_chunks))
    most_chunks = max(1, MAX_CHUNKS_QUEUED // n_rollouts_queued)
    return max(wanted, math.ceil(n_steps / most_chunks))


def _chunk_layout(task: CollectionTask, actor: ActorSpec, n_steps: int) -> Layout:
    n_envs = task.envs_per_sampler
    fields = actor.fields(n_steps, n_envs)
    if task.normalization is not None:
        fields += task.normalization.spec.fields(n_steps, n_envs)
    return chunk_layout(n_steps, n_envs, task.observation_space, fields)


def _in_words(nbytes: float) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
