"""The sampler: pulls the policy, steps its environments, fills a chunk. Knows nothing of processes."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.actors.protocol import Actor, ActorSpec
from sb3_walle.samplers.envs import TERMINAL_OBSERVATION, TRUNCATED, EnvDescription, SamplerEnvs, copy_observations
from sb3_walle.samplers.factories import EnvFactory
from sb3_walle.transport.chunk import Chunk, row
from sb3_walle.transport.experience_queue import ExperienceGeometry, ExperienceWriter, Seal
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.memory import SharedMemory
from sb3_walle.transport.policy_queue import PolicyReader

InfoRecord: TypeAlias = tuple[int, int, dict[str, Any]]


@dataclass(frozen=True)
class Ticket:
    """
    Permission to collect one chunk.

    :param number: the chunk's report carries the same number
    :param run: collection run that the ticket belongs to; the chunk is abandoned when another one has begun
    :param slot: slot of the experience queue to fill
    :param n_steps: number of steps to collect
    :param version: policy version to collect with, ``None`` for the newest at that moment
    :param max_policy_lag: end the chunk early once the learner is this many versions ahead, or once the chunk has taken
        as long as it should; ``None`` for never
    :param all_infos: whether the infos of all steps are passed on, or only those that end an episode
    """

    number: int
    run: int
    slot: int
    n_steps: int
    version: int | None
    max_policy_lag: int | None
    all_infos: bool


@dataclass(frozen=True)
class ChunkReport:
    """
    What became of a ticket.

    :param ticket: number of the ticket
    :param slot: slot that was filled
    :param seal: what lies there; ``None`` if the chunk was abandoned
    :param infos: step, environment and info of every step whose info is passed on
    :param seconds: how long it took
    """

    ticket: int
    slot: int
    seal: Seal | None
    infos: Sequence[InfoRecord]
    seconds: float


@dataclass(frozen=True)
class CollectionSettings:
    """
    All that a sampler needs to collect chunks.

    :param actor: how to build its actor
    :param weights_layout: layout of the policy queue's weights
    :param policy_memory: memory of the policy queue
    :param geometry: where the experience queue's slots lie
    :param experience_memory: memory of the experience queue
    :param squash_output: whether actions come in [-1, 1] and are to be rescaled to the action space
    """

    actor: ActorSpec
    weights_layout: Layout
    policy_memory: SharedMemory
    geometry: ExperienceGeometry
    experience_memory: SharedMemory
    squash_output: bool


class Sampler:
    """
    One worker with environments and a policy of its own.

    :param index: number of the sampler
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._envs: SamplerEnvs | None = None
        self._filler: _ChunkFiller | None = None

    @property
    def envs(self) -> SamplerEnvs:
        """The environments, once they are built."""
        if self._envs is None:
            raise RuntimeError("The sampler has no environments: they were never built, or are closed")
        return self._envs

    def build_envs(self, factories: Sequence[EnvFactory]) -> EnvDescription:
        """
        Build the environments.

        :param factories: builds one environment each
        :return: what the learner has to know of them
        """
        self._envs = SamplerEnvs(factories)
        return self._envs.describe()

    def configure(self, settings: CollectionSettings) -> None:
        """
        Get ready to collect chunks.

        :param settings: the actor and both queues
        """
        self._filler = _ChunkFiller(self.index, self.envs, settings)

    def collect(self, ticket: Ticket) -> ChunkReport:
        """
        Collect one chunk.

        :param ticket: what to collect
        :return: what was collected
        :raises RuntimeError: if :meth:`configure` was not called before
        """
        if self._filler is None:
            raise RuntimeError("The sampler was asked for a chunk before it was told how to collect one")
        return self._filler.collect(ticket)

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
        self._envs = self._filler = None


class _ChunkFiller:
    """A sampler's environments and actor at work between the two queues."""

    def __init__(self, index: int, envs: SamplerEnvs, settings: CollectionSettings) -> None:
        self.envs = envs
        self.actor: Actor = settings.actor.build(envs.n_envs)
        self.policy = PolicyReader(settings.weights_layout, settings.policy_memory)
        self.experience = ExperienceWriter(settings.geometry, settings.experience_memory, index)
        self.to_env_actions = env_actions(envs.action_space, settings.squash_output, envs.n_envs)

    def collect(self, ticket: Ticket) -> ChunkReport:
        started = time.perf_counter()
        if ticket.run != self.policy.run:
            return ChunkReport(ticket.number, ticket.slot, None, (), 0.0)
        self._pull(ticket.version)
        chunk = self.experience.open(ticket.slot)
        infos: list[InfoRecord] = []
        n_steps = self._fill(chunk, ticket, infos)
        seal = None
        if ticket.run == self.policy.run:
            self.actor.end_chunk(self.envs.observations, n_steps)
            seal = Seal(ticket.number, self.policy.version, n_steps)
            self.experience.seal(ticket.slot, seal)
        return ChunkReport(ticket.number, ticket.slot, seal, infos, time.perf_counter() - started)

    def _pull(self, version: int | None) -> None:
        weights = self.policy.pull(version)
        if weights is not None:
            self.actor.load_weights(weights)

    def _fill(self, chunk: Chunk, ticket: Ticket, infos: list[InfoRecord]) -> int:
        """Fill the chunk, going on from where the environments are. Returns the number of steps made."""
        envs = self.envs
        if envs.needs_reset:
            envs.reset([None] * envs.n_envs, [{}] * envs.n_envs)
        copy_observations(envs.observations, row(chunk.observations, 0))
        chunk.episode_starts[0] = envs.episode_starts
        self.actor.begin_chunk(chunk)
        with envs.changing():
            n_steps = self._step(chunk, ticket, infos)
        copy_observations(row(chunk.observations, n_steps), envs.observations)
        envs.episode_starts[:] = chunk.episode_starts[n_steps]
        return n_steps

    def _step(self, chunk: Chunk, ticket: Ticket, infos: list[InfoRecord]) -> int:
        """The step loop. Returns the number of steps made."""
        envs, actor, policy, to_env_actions = self.envs, self.actor, self.policy, self.to_env_actions
        is_due = None if ticket.max_policy_lag is None else _Due(policy, ticket.max_policy_lag)
        step = 0

        def on_info(env: int, info: dict[str, Any], done: bool) -> None:
            if done and info[TRUNCATED]:
                actor.bootstrap(info[TERMINAL_OBSERVATION], step, env)
            if done or ticket.all_infos:
                infos.append((step, env, deepcopy(info)))

        while step < ticket.n_steps and ticket.run == policy.run:
            if is_due is not None and step > 0 and is_due():
                break
            actions = to_env_actions(actor.act(row(chunk.observations, step), step))
            after = row(chunk.observations, step + 1)
            envs.step(actions, after, chunk.rewards[step], chunk.episode_starts[step + 1], on_info)
            step += 1
        return step


class _Due:
    """
    Says when a chunk should be delivered although it is not full.

    :param policy: the policy queue, from which the chunk's weights were pulled
    :param max_policy_lag: how many versions the learner may get ahead
    """

    def __init__(self, policy: PolicyReader, max_policy_lag: int) -> None:
        self._policy = policy
        self._stale_version = policy.version + max_policy_lag
        self._deadline = time.perf_counter() + policy.chunk_seconds

    def __call__(self) -> bool:
        return self._policy.latest_version >= self._stale_version or time.perf_counter() >= self._deadline


def env_actions(action_space: spaces.Space, squash_output: bool, n_envs: int) -> Callable[[np.ndarray], np.ndarray]:
    """
    How SB3 turns a policy's actions into what the environments are given.

    :param action_space: the environments' action space
    :param squash_output: whether the policy gives actions in [-1, 1]
    :param n_envs: number of environments
    :return: a function of one action for each environment, ``[n_envs, ...]``, or of several steps of them,
        ``[T, n_envs, ...]``, whose result the environments may keep
    """
    if not isinstance(action_space, spaces.Box):
        return np.copy
    low, high = action_space.low, action_space.high
    if squash_output:
        return lambda actions: low + (0.5 * (actions + 1.0) * (high - low))
    # The two ufuncs, on bounds that need no broadcasting, give what np.clip gives in a third of its time.
    lowest, highest = np.stack([low] * n_envs), np.stack([high] * n_envs)
    return lambda actions: np.minimum(np.maximum(actions, lowest), highest)
