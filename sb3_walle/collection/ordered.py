"""Modes "sync" and "pipelined": every sampler gives its fixed share, collected with a fixed policy version."""

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from sb3_walle.backends.client import SamplerClient
from sb3_walle.collection.collector import CollectionTask, Collector, ReadyChunk
from sb3_walle.collection.rollout import Rollout
from sb3_walle.samplers.actors.protocol import ActorSpec


class OrderedCollector(Collector):
    """
    Rollout ``r`` is collected with the version that the learner has at rollout ``r - policy_lag``, by each sampler the
    same number of steps. So what is learned from is a function of the seed alone, whatever the timing.

    With lag 0 samplers wait for each update. With lag 1 they collect a rollout while the learner trains on the one
    before.

    :param policy_lag: how many versions the policy is behind
    :param samplers: see :class:`Collector`, as for the others
    """

    def __init__(
        self,
        samplers: SamplerClient,
        task: CollectionTask,
        actors: list[ActorSpec],
        weights: Mapping[str, np.ndarray],
        policy_lag: int,
    ) -> None:
        super().__init__(samplers, task, actors, weights, n_rollouts_queued=policy_lag + 1)
        self.policy_lag = policy_lag
        self._forget()

    def start_run(self) -> None:
        """Begin anew: whatever was asked for before is abandoned."""
        super().start_run()
        self._forget()

    def _forget(self) -> None:
        self._n_asked = self._n_collected = 0
        self._arrived: list[deque[ReadyChunk]] = [deque() for _ in range(self.samplers.n_samplers)]

    def _collect(self, version: int, n_rollouts_left: int) -> Iterator[tuple[Rollout, range]]:
        self._ask(version, n_rollouts_left)
        rollout, step = None, 0
        for n_steps in self.chunk_steps:
            ready = self._next_of_each_sampler()
            rollout = rollout or Rollout(self.task.n_steps, self.n_envs, like=self._arrays(ready[0]))
            for chunk in ready:
                self._paste(chunk, rollout, step)
            step += n_steps
            if step == self.task.n_steps:
                self._n_collected += 1
            yield rollout, range(step - n_steps, step)

    def _is_under_way(self) -> bool:
        return self._n_asked > self._n_collected

    def _ask(self, version: int, n_rollouts_left: int) -> None:
        """Ask for as many rollouts ahead as the lag allows, but for none that nobody is going to need."""
        needed = self._n_collected + min(1 + self.policy_lag, max(n_rollouts_left, 1))
        while self._n_asked < needed:
            for n_steps in self.chunk_steps:
                for sampler in range(self.samplers.n_samplers):
                    self._ask_for_chunk(sampler, n_steps, version)
            self._n_asked += 1

    def _next_of_each_sampler(self) -> list[ReadyChunk]:
        while not all(self._arrived):
            ready = self._next_chunk()
            self._arrived[ready.sampler].append(ready)
        return [arrived.popleft() for arrived in self._arrived]

    def _paste(self, ready: ReadyChunk, rollout: Rollout, step: int) -> None:
        chunk = self._arrays(ready)
        env = ready.sampler * self.task.envs_per_sampler
        rollout.paste(chunk, ready.report.infos, range(chunk.n_steps), step, env, is_continuation=step > 0)
        n_env_steps = chunk.n_steps * chunk.n_envs
        self.statistics.add_steps(ready.sampler, ready.seal.version, n_env_steps, ready.report.seconds)
        self._done_with(ready)
