"""Which steps fill which columns of a rollout in mode "free"."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.statistics import CollectionStatistics
from sb3_walle.samplers.infos import InfoRecord
from sb3_walle.transport.chunk import Chunk


@dataclass(frozen=True)
class Arrival:
    """
    A chunk that has arrived, in its slot of the experience queue.

    :param sampler: number of the sampler
    :param ticket: number of the sampler's ticket: the chunk with the next number continues this one
    :param version: policy version that chose the actions
    :param chunk: what the slot holds
    :param infos: the infos that came with it
    :param seconds_per_step: how long the sampler took for a step, in seconds
    :param release: gives the slot back; the chunk must not be used afterwards
    """

    sampler: int
    ticket: int
    version: int
    chunk: Chunk
    infos: Sequence[InfoRecord]
    seconds_per_step: float
    release: Callable[[], None]

    def note_steps(self, n_env_steps: int, statistics: CollectionStatistics) -> None:
        """
        Count steps that were put into the rollout.

        :param n_env_steps: how many, summed over environments
        :param statistics: what counts them
        """
        seconds = n_env_steps / self.chunk.n_envs * self.seconds_per_step
        statistics.add_steps(self.sampler, self.version, n_env_steps, seconds)


class Placement(ABC):
    """
    Puts steps into the columns of rollouts, and keeps those for which there is no room until the next rollout.

    :param max_policy_lag: how many versions behind a step may be when it is put into a rollout, ``None`` for any number
    """

    def __init__(self, max_policy_lag: int | None) -> None:
        self.max_policy_lag = max_policy_lag
        #: the rollout that is being filled; ``None`` as long as there is nothing to fill it with
        self.rollout: Rollout | None = None

    @abstractmethod
    def start_run(self) -> None:
        """Forget all steps, and begin with an empty rollout."""

    @abstractmethod
    def begin_rollout(self, version: int, statistics: CollectionStatistics) -> None:
        """
        Begin another rollout with the steps that were kept.

        :param version: the learner's policy version
        :param statistics: what counts steps that are used and steps that are dropped
        """

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the rollout is full."""

    @abstractmethod
    def add(self, arrival: Arrival) -> bool:
        """
        Put a chunk into the rollout, or keep what there is no room for.

        :param arrival: the chunk; it is released as soon as its slot is not needed any more
        :return: whether anything of it is used; otherwise it was too old and has been dropped
        """

    def n_kept(self, sampler: int) -> int:
        """
        :param sampler: number of a sampler
        :return: how many of its steps are kept outside of the experience queue, of each environment at most
        """
        return 0

    def n_steps_further(self, sampler: int, learner_waits: bool) -> int:
        """
        :param sampler: number of a sampler
        :param learner_waits: whether the rollout waits for steps and no chunk has arrived
        :return: how many steps the sampler may be ahead beyond the capacity of the experience queue
        """
        return 0

    def _is_stale(self, policy_lag: int) -> bool:
        return self.max_policy_lag is not None and policy_lag > self.max_policy_lag
