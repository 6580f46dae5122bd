"""Rollouts of whole episodes, in modes "sync" and "pipelined"."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.collector import Collector, warm_up_lengths
from sb3_walle.collection.episode_rollout import EpisodeRollout
from sb3_walle.collection.rollout import Rollout
from sb3_walle.collection.task import EpisodeRules
from sb3_walle.samplers.episodes import EpisodeShare
from sb3_walle.user_warning import warn_user

# A sampler that is through with a chunk has another ticket while the learner takes that chunk.
TICKETS_AHEAD = 2
# Episodes may be longer than expected while the learner trains and hands out no tickets.
MARGIN = 2


class EpisodeCollector(Collector):
    """
    A rollout consists of whole episodes, and the lengths of those before it alone decide how many. They are dealt to
    samplers in turn, and all are awaited: if those that end first made up the rollout, short ones would be in it more
    often than they happen (Frans & Hafner, 2016, "Parallel Trust Region Policy Optimization with Multiple Actors").

    As in :class:`~sb3_walle.collection.ordered.OrderedCollector`, rollout ``r`` is collected with the version that the
    learner has at rollout ``r - lag``, so that timing decides nothing. With lag 1, a sampler that has given its
    episodes to one rollout begins with those of the next. About half of these are dealt before the lengths of the
    present rollout's episodes are known, and all others when the last of those has arrived.

    How many chunks an episode takes is not known before. So a ticket names the sampler's shares of all rollouts that
    are under way, and the sampler works at the first one that is not complete.
    """

    _has_told_of_limit = False

    @property
    def _rules(self) -> EpisodeRules:
        assert self.task.episodes is not None
        return self.task.episodes

    @property
    def _mean_steps(self) -> float:
        """How long an episode probably is."""
        return self.mean_episode_steps or self._rules.expected_steps

    def _forget(self) -> None:
        super()._forget()
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
        if not self._is_under_way():
            self._begin(version, self._n_episodes())
            if self._has_young_statistics():
                self._warm_up()
        if len(self._under_way) < min(self.n_rollouts_queued, max(n_rollouts_left, 1)):
            self._begin(version, self._n_episodes_ahead())
        self._hand_out_all()
        while not self._under_way[0].is_complete(self._n_completed):
            self._hand_out(self._take(self._next_chunk()))
        rollout = self._put_together(self._under_way.popleft())
        if self._is_under_way():
            # The learner trains now, and samplers continue with all that is missing.
            self._deal(self._n_episodes())
            self._hand_out_all()
        yield rollout, range(rollout.n_steps)

    def _n_episodes(self) -> int:
        """How many episodes a rollout has if they are as long as those of the last one."""
        return max(1, round(self.n_samples_per_rollout / self._mean_steps))

    def _n_episodes_ahead(self) -> int:
        """How many are dealt before the present rollout is complete: half, as episodes may turn out to be longer."""
        n_episodes = self._n_episodes()
        return max(math.ceil(n_episodes / 2), min(n_episodes, self.samplers.n_samplers))

    def _begin(self, version: int, n_episodes: int) -> None:
        """Begin another rollout with some of its episodes."""
        self._under_way.append(_DealtEpisodes(version, list(self._n_dealt)))
        self._deal(n_episodes)

    def _deal(self, n_episodes: int) -> None:
        """
        Have the newest rollout consist of so many episodes, or of more if they are dealt already. The first one goes to
        the sampler after the one that was dealt the last.
        """
        newest = self._under_way[-1]
        while newest.n_episodes < n_episodes:
            newest.n_episodes += 1
            self._n_dealt[self._next_sampler] += 1
            newest.until[self._next_sampler] += 1
            self._next_sampler = (self._next_sampler + 1) % self.samplers.n_samplers

    def _warm_up(self) -> None:
        """
        Begin a rollout chunk by chunk, each with the statistics of those before it, see
        :meth:`~sb3_walle.collection.ordered.OrderedCollector._warm_up`.
        """
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

    def _hand_out_all(self) -> None:
        for sampler in range(self.samplers.n_samplers):
            self._hand_out(sampler)

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
        lengths = rollout.episode_lengths
        self.mean_episode_steps, self.statistics.n_episodes = float(lengths.mean()), len(lengths)
        self._tell_of_limit(rollout.longest_truncated)
        return rollout

    def _tell_of_limit(self, longest: int) -> None:
        limit = self._rules.max_steps
        if limit is None or self._has_told_of_limit or longest < limit:
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
    :param until: for each sampler, how many episodes of the run it has completed when it has given its share, which at
        first is empty
    """

    def __init__(self, version: int, until: list[int]) -> None:
        self.version, self.until = version, until
        self.n_episodes = 0
        #: what has arrived of them, for each sampler
        self.chunks: list[list[Arrival]] = [[] for _ in until]
        #: how many of these chunks the statistics include
        self.n_merged = [0] * len(until)

    def is_complete(self, n_completed: list[int]) -> bool:
        """:return: whether all episodes have arrived, by the number that each sampler has completed in the run"""
        return all(n >= until for n, until in zip(n_completed, self.until, strict=True))
