"""Where an algorithm's experience comes from."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.algorithm.policy_settings import PolicySettings, policy_settings
from sb3_walle.backends.limits import available_cpus
from sb3_walle.collection.collector import Collector
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.timeline.timeline import Timeline
from sb3_walle.updates.global_state import threads_at_most


class ExperienceSource:
    """
    Holds the collector that fits an algorithm as it is at present. A copy begins without a collector, which belongs to
    samplers and shared memory.
    """

    def __init__(self, infos: InfoSelection) -> None:
        self.collector: Collector | None = None
        #: which infos are passed on
        self.infos = infos
        #: seed of the samplers' random streams, ``None`` for fresh entropy
        self.seed: int | None = None
        #: how many collectors were made from this seed: the streams of the next one are others
        self.n_collectors = 0
        #: keeps what learner and samplers do, if it is wanted
        self.timeline: Timeline | None = None
        self._key: tuple | None = None
        self._policy_settings: PolicySettings | None = None

    def reseed(self, seed: int) -> None:
        """Have the next collector begin the random streams of a seed."""
        self.seed, self.n_collectors, self._key = seed, 0, None

    def forget(self) -> None:
        """Let go of the collector, which keeps its samplers alive."""
        self.collector = self._key = None

    def interrupt(self) -> None:
        """Have the samplers abandon what they are collecting."""
        if self.collector is not None:
            self.collector.interrupt()

    def look_at_policy(self, policy: BasePolicy) -> None:
        """Have the next collector made anew if more than the policy's weights has changed: samplers hold a copy."""
        settings = policy_settings(policy)
        if settings != self._policy_settings:
            self._policy_settings, self._key = settings, None

    def up_to_date(self, env: WrappedSamplers, settings: tuple, make: Callable[[], Collector]) -> Collector:
        """
        :param settings: what else the collector depends on
        :param make: makes a collector, if something that it depends on has changed
        :return: the collector
        """
        key = (env.vec_env, env.layers, env.vec_normalize, *settings)
        collector = self.collector
        if collector is None or env.vec_env.collector is not collector or self._key != key:
            collector = make()
            self.collector, self._key = collector, key
            self.n_collectors += 1
            env.vec_env.collector = collector
            collector.start_run()
        collector.infos, collector.timeline = self.infos, self.timeline
        return collector

    def cpus_shared(self, n_others: int, needs_more: bool) -> AbstractContextManager[None]:
        """
        Have torch use no more threads than the processes at work leave cores.

        torch's threads wait for each other at the end of every operation. If one of them shares its core with another
        process, all wait for it: with two threads on two busy cores, an update of a small network can take three times
        as long as with one. But where samplers mostly wait for the learner, it takes the half of the cores that is its
        session's, and two at least.

        :param n_others: number of processes at work that are no samplers
        :param needs_more: see :func:`~sb3_walle.algorithm.learner_load.needs_threads`
        """
        n_samplers = 0 if self.collector is None else self.collector.n_samplers_at_work
        if n_samplers + n_others == 0:
            return nullcontext()
        n_cpus = available_cpus()
        least = max(2, n_cpus // 2) if needs_more else 1
        return threads_at_most(max(1, min(n_cpus, max(n_cpus - n_samplers, least)) - n_others))

    def record(self, logger: Logger, mode: str) -> None:
        """Have the next log tell how the samplers are doing."""
        if self.collector is None:
            return
        statistics = self.collector.statistics
        for name, value in statistics.figures().items():
            logger.record(name, value)
        logger.record("async/restarts", self.collector.samplers.n_restarts)
        # TensorBoard draws no words.
        logger.record("async/bottleneck", statistics.workload.take_bottleneck(), exclude="tensorboard")
        if mode == "free":
            logger.record("async/stale_steps", statistics.n_stale_steps)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "collector": None, "timeline": None, "_key": None}
