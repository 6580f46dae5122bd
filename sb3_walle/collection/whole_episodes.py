"""Rollouts of whole episodes, in modes "sync" and "pipelined"."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.collector import Collector, warm_up_lengths
from sb3_walle.collection.episode_rollout import EpisodeRollout
from sb3_walle.collection.queues import QueueCapacity
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.episodes import EpisodeShare
from sb3_walle.user_warning import warn_user

# A sampler that is through with a chunk has another ticket while the learner takes that chunk.
TICKETS_AHEAD = 2
# Episodes may be longer than expected while the learner trains and hands out no tickets.
MARGIN = 2


class EpisodeCollector(Collector):
    """
    A rollout consists of whole episodes, whose number is known before any of them begins. They are dealt to samplers in
    turn, and all are awaited: if those that end first made up the rollout, short ones would be in it more often than
    they happen (Frans & Hafner, 2016, "Parallel Trust Region Policy Optimization with Multiple Actors").

    As in :class:`~sb3_walle.collection.ordered.OrderedCollector`, rollout ``r`` is collected with the version that the
    learner has at rollout ``r - policy_lag``, so that timing decides nothing. With lag 1, a sampler that has given its
    episodes to one rollout begins with those of the next.

    How many chunks an episode takes is not known before. So a ticket names the sampler's shares of all rollouts that
    are under way, and the sampler works at the first one that is not complete.

    :param policy_lag: how many versions the policy is behind
    """

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        capacity: QueueCapacity,
        policy_lag: int,
    ) -> None:
        super().__init__(samplers, task, actors, weights, capacity)
        assert task.episodes is not None
        self.policy_lag, self._rules = policy_lag, task.episodes
        self._has_told_of_limit = False
        self._forget()

    def plan_episodes(self, target_steps: int, mean_steps: float | None) -> None:
        """
        Set the size of the rollouts that are asked for from now on.

        :param target_steps: about how many steps they have
        :param mean_steps: how long episodes are on average, ``None`` if that is unknown
        """
        self._target_steps = target_steps
        self._mean_steps = mean_steps or float(self._rules.expected_steps)
        self._n_episodes = max(1, round(target_steps / self._mean_steps))

    @property
    def n_samples_per_rollout(self) -> int:
        return self._target_steps

    def start_run(self) -> None:
        super().start_run()
        self._forget()

    def _forget(self) -> None:
        self._under_way: deque[_DealtEpisodes] = deque()
        #: for each sampler, of the episodes of this run: how many it was dealt and how many it has completed; and the
        #: steps of the one that it is in
        self._n_dealt = [0] * self.samplers.n_samplers
        self._n_completed = [0] * self.samplers.n_samplers
        self._n_steps_of_last = [0] * self.samplers.n_samplers
        self._next_sampler = 0
        self._warms_up = False

    def _is_under_way(self) -> bool:
        return len(self._under_way) > 0

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        if self._has_young_statistics() and not self._is_under_way():
            self._warm_up(version)
        while len(self._under_way) < min(1 + self.policy_lag, max(n_rollouts_left, 1)):
            self._deal(version)
        for sampler in range(self.samplers.n_samplers):
            self._hand_out(sampler)
        while not self._under_way[0].is_complete(self._n_completed):
            self._hand_out(self._take(self._next_chunk()))
        rollout = self._put_together(self._under_way.popleft())
        yield rollout, range(rollout.n_steps)

    def _deal(self, version: int) -> None:
        """Deal the episodes of another rollout, beginning with the sampler after the one that was dealt the last."""
        n_samplers = self.samplers.n_samplers
        for _ in range(self._n_episodes):
            self._n_dealt[self._next_sampler] += 1
            self._next_sampler = (self._next_sampler + 1) % n_samplers
        self._under_way.append(_DealtEpisodes(version, tuple(self._n_dealt)))

    def _warm_up(self, version: int) -> None:
        """
        Begin a rollout chunk by chunk, each with the statistics of those before it, see
        :meth:`~sb3_walle.collection.ordered.OrderedCollector._warm_up`.
        """
        self._deal(version)
        self._warms_up = True
        for n_steps in warm_up_lengths(self.task.n_steps, self.chunk_steps[0]):
            asked = [sampler for sampler in range(self.samplers.n_samplers) if self._shares(sampler)]
            self._publish()
            for sampler in asked:
                self._ask_for_chunk(sampler, n_steps, None, shares=self._shares(sampler))
            for _ in asked:
                self._take(self._next_chunk())
            self._merge(self._under_way[0])
        self._warms_up = False
        self._publish()

    def _shares(self, sampler: int) -> tuple[EpisodeShare, ...]:
        """What a sampler still gives to the rollouts that are under way."""
        return tuple(
            EpisodeShare(dealt.until[sampler], dealt.version)
            for dealt in self._under_way
            if dealt.until[sampler] > self._n_completed[sampler]
        )

    def _hand_out(self, sampler: int) -> None:
        """Hand out as many tickets as a sampler's episodes may take."""
        shares = self._shares(sampler)
        n_missing = self._n_dealt[sampler] - self._n_completed[sampler]
        steps_left = max(0.0, n_missing * self._mean_steps - self._n_steps_of_last[sampler])
        n_tickets = TICKETS_AHEAD + MARGIN * math.ceil(steps_left / self.chunk_steps[0])
        while shares and self.queues.chunks.n_reserved(sampler) < n_tickets:
            if not self._ask_for_chunk(sampler, self.chunk_steps[0], None, shares=shares):
                break

    def _take_back(self, sampler: int, slot: int) -> None:
        """The sampler had nothing left to collect when it came to the ticket. By now there may be another rollout."""
        super()._take_back(sampler, slot)
        if not self._warms_up:
            self._hand_out(sampler)

    def _take(self, arrival: Arrival) -> int:
        """Keep a copy of a chunk. Returns the number of the sampler, which has a free slot now."""
        sampler, chunk = arrival.sampler, arrival.chunk
        dealt = next(dealt for dealt in self._under_way if dealt.until[sampler] > self._n_completed[sampler])
        dealt.chunks[sampler].append(replace(arrival, chunk=chunk.copied()))
        ends = np.flatnonzero(chunk.dones[: chunk.n_steps])
        self._n_completed[sampler] += len(ends)
        before = 0 if len(ends) else self._n_steps_of_last[sampler]
        self._n_steps_of_last[sampler] = before + chunk.n_steps - (ends[-1] + 1 if len(ends) else 0)
        arrival.release()
        return sampler

    def _merge(self, dealt: "_DealtEpisodes") -> None:
        """Learn from what samplers measured since the last time, in an order that timing does not change."""
        for sampler, chunks in enumerate(dealt.chunks):
            for arrival in chunks[dealt.n_merged[sampler] :]:
                self._merge_statistics(arrival)
            dealt.n_merged[sampler] = len(chunks)

    def _put_together(self, dealt: "_DealtEpisodes") -> EpisodeRollout:
        self._merge(dealt)
        for arrival in chain.from_iterable(dealt.chunks):
            self.statistics.add_steps(arrival, arrival.chunk.n_steps)
        rollout = EpisodeRollout(dealt.chunks)
        self._tell_of_limit(rollout)
        return rollout

    def _tell_of_limit(self, rollout: EpisodeRollout) -> None:
        limit = self._rules.max_steps
        if limit is None or self._has_told_of_limit or rollout.episode_lengths.max() < limit:
            return
        self._has_told_of_limit = True
        warn_user(
            f"An episode has not ended within {limit} steps and was truncated. Rollouts of whole episodes need an end "
            "to each: max_episode_steps sets how many steps it may have, by default as many as target_steps where the "
            "environment has no limit of its own."
        )


class _DealtEpisodes:
    """
    The episodes of a rollout that is under way.

    :param version: policy version to collect them with
    :param until: for each sampler, how many episodes of the run it has completed when it has given its share
    """

    def __init__(self, version: int, until: tuple[int, ...]) -> None:
        self.version, self.until = version, until
        #: what has arrived of them, for each sampler
        self.chunks: list[list[Arrival]] = [[] for _ in until]
        #: how many of these chunks the statistics include
        self.n_merged = [0] * len(until)

    def is_complete(self, n_completed: list[int]) -> bool:
        """:return: whether all episodes have arrived, by the number that each sampler has completed in the run"""
        return all(n >= until for n, until in zip(n_completed, self.until, strict=True))
