"""What is reported of the collection of a rollout."""

import numpy as np

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.workload import Workload


class CollectionStatistics:
    """
    Figures of the rollout that is being collected, or was collected last.

    :param n_samplers: number of samplers
    :param needs_all_samplers: as for :class:`Workload`
    """

    def __init__(self, n_samplers: int, needs_all_samplers: bool) -> None:
        self._n_samplers = n_samplers
        #: tells what holds up training
        self.workload = Workload(n_samplers, needs_all_samplers)
        self.begin_rollout(version=0, queue_fill=0.0)

    def begin_rollout(self, version: int, queue_fill: float) -> None:
        self._version = version
        #: share of the experience queue that holds finished chunks, between 0 and 1
        self.queue_fill = queue_fill
        #: seconds for which the learner waited for chunks
        self.wait_seconds = 0.0
        #: steps that were thrown away because their policy was too old
        self.n_stale_steps = 0
        #: how many episodes the rollout consists of, if these are whole
        self.n_episodes: int | None = None
        self._lags: list[int] = []
        self._lag_weights: list[int] = []
        self._busy_seconds = np.zeros(self._n_samplers)
        self._env_steps = np.zeros(self._n_samplers)
        self.workload.begin_rollout()

    def add_wait(self, seconds: float) -> None:
        """The learner has waited for a chunk."""
        self.wait_seconds += seconds
        self.workload.add_wait(seconds)

    def add_steps(self, arrival: Arrival, n_env_steps: int) -> None:
        """Count steps of a chunk, summed over environments, that are put into the rollout."""
        self._lags.append(self._version - arrival.version)
        self._lag_weights.append(n_env_steps)
        seconds = arrival.seconds * n_env_steps / (arrival.chunk.n_steps * arrival.chunk.n_envs)
        self._busy_seconds[arrival.sampler] += seconds
        self.workload.add_work(arrival.sampler, seconds)
        self._env_steps[arrival.sampler] += n_env_steps

    @property
    def collect_seconds(self) -> float:
        """For how long the busiest sampler worked on the rollout."""
        return float(self._busy_seconds.max())

    @property
    def sampler_steps_per_second(self) -> float:
        """Environment steps per second of a sampler at work, on average."""
        busy = self._busy_seconds.sum()
        return float(self._env_steps.sum() / busy) if busy > 0 else 0.0

    @property
    def policy_lag_mean(self) -> float:
        """Mean policy lag over the steps of the rollout."""
        return float(np.average(self._lags, weights=self._lag_weights)) if self._lags else 0.0

    @property
    def policy_lag_max(self) -> int:
        """Largest policy lag in the rollout."""
        return max(self._lags, default=0)

    def figures(self) -> dict[str, float]:
        """What is logged of every rollout, by name."""
        episodes = {} if self.n_episodes is None else {"async/episodes": self.n_episodes}
        return {
            **episodes,
            "time/collect_seconds": self.collect_seconds,
            "time/wait_seconds": self.wait_seconds,
            "async/policy_lag_mean": self.policy_lag_mean,
            "async/policy_lag_max": self.policy_lag_max,
            "async/sampler_steps_per_second": self.sampler_steps_per_second,
            "async/queue_fill": self.queue_fill,
        }
