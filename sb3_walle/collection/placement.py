"""Which steps fill which columns of a rollout in mode "free"."""

from abc import ABC, abstractmethod

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.statistics import CollectionStatistics


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
        :param statistics: counts steps that are used and steps that are dropped
        """

    @property
    @abstractmethod
    def is_complete(self) -> bool: ...

    @abstractmethod
    def add(self, arrival: Arrival) -> bool:
        """
        Put a chunk into the rollout, or keep what there is no room for. Releases the chunk as soon as its slot is not
        needed any more.

        :return: whether anything of it is used; otherwise it was too old and has been dropped
        """

    def n_further_steps(self, sampler: int, learner_waits: bool) -> int:
        """
        :param learner_waits: whether the rollout waits for steps and no chunk has arrived
        :return: how many steps more than the experience queue holds the sampler may be asked for; less than 0 if steps
            of it are kept elsewhere
        """
        return 0

    def _is_stale(self, policy_lag: int) -> bool:
        return self.max_policy_lag is not None and policy_lag > self.max_policy_lag
