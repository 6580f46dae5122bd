"""Modes "sync" and "pipelined": every sampler gives its fixed share, collected with a fixed policy version."""

from collections import deque
from collections.abc import Iterator

from sb3_walle.collection.arrival import Arrival
from sb3_walle.collection.collector import Collector, warm_up_lengths
from sb3_walle.collection.rollout import Rollout


class OrderedCollector(Collector):
    """
    Rollout ``r`` is collected with the version that the learner has at rollout ``r - lag``, by each sampler the same
    number of steps. So what is learned from is a function of the seed alone, and not of any timing.

    Samplers are asked for as many rollouts at a time as the experience queue holds: for one, so that they wait for each
    update (lag 0); or for two, so that they collect a rollout while the learner trains on the one before (lag 1).
    """

    def _forget(self) -> None:
        super()._forget()
        self._n_asked = self._n_collected = 0
        self._arrived: list[deque[Arrival]] = [deque() for _ in range(self.samplers.n_samplers)]

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        if self._has_young_statistics() and not self._is_under_way():
            blocks = self._warm_up(version, n_rollouts_left)
        else:
            self._ask(version, min(self.n_rollouts_queued, max(n_rollouts_left, 1)))
            blocks = (self._next_of_each_sampler() for _ in self.chunk_steps)
        rollout, step = None, 0
        for arrivals in blocks:
            n_steps = arrivals[0].chunk.n_steps
            rollout = rollout or Rollout(self.task.n_steps, self.n_envs, like=arrivals[0].chunk)
            for arrival in arrivals:
                self._paste(arrival, rollout, step)
            step += n_steps
            if step == self.task.n_steps:
                self._n_collected += 1
            yield rollout, range(step - n_steps, step)

    @property
    def n_steps_ahead(self) -> int:
        return (self._n_asked - self._n_collected) * self.task.n_steps

    def _is_under_way(self) -> bool:
        return self._n_asked > self._n_collected

    def _warm_up(self, version: int, n_rollouts_left: int) -> Iterator[list[Arrival]]:
        """
        Collect a rollout chunk by chunk, each with the statistics of those before it. Samplers do wait for each other
        then, but the learner has nothing to do yet either.
        """
        self._n_asked += 1
        for n_steps in warm_up_lengths(self.task.n_steps, self.chunk_steps[0]):
            self._publish()
            self._ask_each(n_steps, version)
            yield self._next_of_each_sampler()
        self._publish()
        self._ask(version, min(self.n_rollouts_queued, max(n_rollouts_left, 1)) - 1)

    def _ask(self, version: int, n_rollouts: int) -> None:
        """Ask for as many rollouts more than were collected, as far as they were not asked for before."""
        while self._n_asked < self._n_collected + n_rollouts:
            for n_steps in self.chunk_steps:
                self._ask_each(n_steps, version)
            self._n_asked += 1

    def _ask_each(self, n_steps: int, version: int) -> None:
        for sampler in range(self.samplers.n_samplers):
            if not self._ask_for_chunk(sampler, n_steps, version):
                raise RuntimeError(f"The experience queue has no slot left for sampler {sampler}")

    def _next_of_each_sampler(self) -> list[Arrival]:
        while not all(self._arrived):
            arrival = self._next_chunk()
            self._arrived[arrival.sampler].append(arrival)
        return [arrived.popleft() for arrived in self._arrived]

    def _paste(self, arrival: Arrival, rollout: Rollout, step: int) -> None:
        chunk, env = arrival.chunk, arrival.sampler * self.task.envs_per_sampler
        is_continuation = step > 0 or self._n_collected > 0
        rollout.paste(chunk, arrival.infos, range(chunk.n_steps), step, env, is_continuation=is_continuation)
        self._merge_statistics(arrival)
        self.statistics.add_steps(arrival, chunk.n_steps * chunk.n_envs)
        arrival.release()
