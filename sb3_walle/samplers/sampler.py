"""The sampler: pulls the policy, steps its environments, fills a chunk. Knows nothing of processes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

from sb3_walle.realtime.plant import Plant
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.realtime.statistics import TickTimes
from sb3_walle.samplers.actors.protocol import Actor, ActorSpec, AsksEnvs
from sb3_walle.samplers.building import build_envs
from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.episode_limit import limit_episodes
from sb3_walle.samplers.episodes import CompletedEpisodes, EndOfShare, EpisodeShare
from sb3_walle.samplers.errors import ObservationError
from sb3_walle.samplers.factories import EnvFactory
from sb3_walle.samplers.finite import check_chunk, check_terminal_observation
from sb3_walle.samplers.infos import TERMINAL_OBSERVATION, TRUNCATED, InfoRecorder, InfoSelection, PackedInfos
from sb3_walle.samplers.late_resets import MadeSteps, empty_block
from sb3_walle.samplers.layers import InnermostEnvs, copy_observations
from sb3_walle.samplers.monitor import refuses_early_resets
from sb3_walle.samplers.stack import EnvDescription, EnvStack, LayerSpec
from sb3_walle.samplers.vectorized.vectorized_envs import VectorizedEnvs
from sb3_walle.transport.chunk import Chunk, Seal, row, rows
from sb3_walle.transport.ports import Control, SamplerEnd, SamplerQueues
from sb3_walle.transport.pulse import Pulse

#: Called with the number of steps in a chunk before the next one is made: whether to end the chunk with them.
_IsDue: TypeAlias = Callable[[int], bool]


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
    :param infos: which infos are passed on
    :param shares: where whole episodes are collected, what the sampler gives to the next rollouts: the chunk holds
        steps of the first share that is not complete, with the policy version of that share, and ends with it. If all
        are complete, there is nothing to collect
    """

    number: int
    run: int
    slot: int
    n_steps: int
    version: int | None
    max_policy_lag: int | None
    infos: InfoSelection
    shares: tuple[EpisodeShare, ...] = ()


@dataclass(frozen=True)
class ChunkReport:
    """
    What became of a ticket.

    :param ticket: number of the ticket
    :param slot: slot that was filled
    :param seal: what lies there; ``None`` if the chunk was abandoned, or there was nothing to collect
    :param infos: the infos that are passed on; ``None`` if there is no chunk
    :param began: when the sampler began it, by its ``perf_counter()``: all processes of a machine have the same clock
    :param ended: when it was complete
    :param n_episodes: where whole episodes are collected, how many of them have ended in the chunk
    :param run: in mode "realtime", the collection run that the chunk belongs to
    :param times: in mode "realtime", when its one step was made
    """

    ticket: int
    slot: int
    seal: Seal | None
    infos: PackedInfos | None
    began: float
    ended: float
    n_episodes: int = 0
    run: int | None = None
    times: TickTimes | None = None


@dataclass(frozen=True)
class DriveOrder:
    """
    What a sampler needs to make chunks of one step each without being asked for every one of them: mode "realtime".

    :param run: collection run that they belong to; the plant rests when another one has begun
    :param infos: which infos are passed on
    :param n_slots: slots of the experience queue, which the sampler fills in turn
    :param first_ticket: number of the first chunk
    """

    run: int
    infos: InfoSelection
    n_slots: int
    first_ticket: int = 0


@dataclass(frozen=True)
class CollectionSettings:
    """
    All that a sampler needs to collect chunks.

    :param actor: how to build its actor
    :param queues: the samplers' end of the queues, from which it opens its own
    :param squash_output: whether actions come in [-1, 1] and have to be rescaled to the action space
    :param layers: what is around the environments of the ``SamplerVecEnv``, from the inside to the outside
    :param check_finite: whether a number in a chunk that is not finite is an error
    :param max_episode_steps: after how many steps episodes are truncated, ``None`` for the environments' own limits
    :param realtime: how environments are acted on in real time, ``None`` if they wait
    """

    actor: ActorSpec
    queues: SamplerEnd
    squash_output: bool
    layers: tuple[LayerSpec, ...] = ()
    check_finite: bool = False
    max_episode_steps: int | None = None
    realtime: RealtimeSettings | None = None


class Sampler:
    """
    One worker with environments and a policy of its own.

    :param index: number of the sampler
    :param pulse: told whenever an environment begins a step; ``None`` where no step is timed
    """

    def __init__(self, index: int, pulse: Pulse | None = None) -> None:
        self.index = index
        self._pulse = pulse
        self._stack: EnvStack | None = None
        self._filler: _ChunkFiller | None = None
        #: the environments, if they are acted on in real time
        self.plants: list[Plant] = []
        #: what to do in mode "realtime" as long as there is no request; ``None`` while plants rest
        self.order: DriveOrder | None = None

    @property
    def stack(self) -> EnvStack:
        """The environments with everything around them, once they are built."""
        if self._stack is None:
            raise RuntimeError("The sampler has no environments: they were never built, or are closed")
        return self._stack

    @property
    def envs(self) -> InnermostEnvs:
        """The environments themselves, once they are built."""
        return self.stack.envs

    def build_envs(
        self, factories: Sequence[EnvFactory], layers: Sequence[LayerSpec] = (), incarnation: int = 0
    ) -> EnvDescription:
        """
        :param factories: builds one environment each, or see :func:`~sb3_walle.samplers.building.build_envs`
        :param layers: what belongs around them, from the inside to the outside
        :param incarnation: how many samplers with these environments have died before
        """
        envs = build_envs(factories, self._pulse, self.index * len(factories), incarnation)
        self._stack = EnvStack(envs, layers)
        return self._stack.describe()

    def configure(
        self, settings: CollectionSettings, n_steps: int = 0, completed: CompletedEpisodes | None = None
    ) -> None:
        """
        Get ready to collect chunks.

        :param n_steps: how many steps a sampler before this one has made with these settings
        :param completed: how many whole episodes it has completed
        """
        self.stack.wrap(settings.layers, n_steps)
        limit_episodes(self.envs.envs, settings.max_episode_steps)
        self.plants = _plants(self.envs, settings.realtime)
        self._filler = _ChunkFiller(self.index, self.stack, settings, completed or CompletedEpisodes())

    @property
    def queues(self) -> SamplerQueues:
        """
        The sampler's end of the queues.

        :raises RuntimeError: if :meth:`configure` was not called before
        """
        return self._configured.queues

    def collect(self, ticket: Ticket) -> ChunkReport:
        """
        Collect one chunk.

        :raises RuntimeError: if :meth:`configure` was not called before
        """
        return self._configured.collect(ticket)

    def rest_plants(self) -> None:
        """Give the plants the fallback action. Their next steps begin with a reset."""
        self.stack.needs_reset = True
        for plant in self.plants:
            plant.give_fallback()

    @property
    def _configured(self) -> "_ChunkFiller":
        if self._filler is None:
            raise RuntimeError("The sampler was asked for a chunk before it was told how to collect one")
        return self._filler

    def close(self) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = self._filler = None


def _plants(envs: InnermostEnvs, settings: RealtimeSettings | None) -> list[Plant]:
    if isinstance(envs, SamplerEnvs):
        if settings is not None:
            return envs.as_plants(settings)
        envs.as_environments()
    elif settings is not None:
        raise TypeError(
            'mode="realtime" acts on single environments, and this one is vectorised: pass a function that builds one.'
        )
    return []


class _ChunkFiller:
    """A sampler's environments and actor at work between the two queues."""

    def __init__(self, index: int, stack: EnvStack, settings: CollectionSettings, completed: CompletedEpisodes) -> None:
        self.stack = stack
        self._completed = completed
        n_envs, action_space = stack.envs.n_envs, stack.vec_env_layer.action_space
        self.weight_names = settings.actor.weight_names
        self.actor: Actor = settings.actor.build(n_envs)
        if isinstance(self.actor, AsksEnvs):
            self.actor.connect(stack.envs)
        self.queues = queues = settings.queues.open(index)
        self.policy, self.control, self.chunks = queues.policy, queues.control, queues.chunks
        self._loaded: tuple[int, int] | None = None
        # For environments that reset some of them while they step others.
        self._block: Chunk | None = None
        self._first_env = index * n_envs
        self._check_finite = settings.check_finite
        self.to_env_actions = env_actions(action_space, settings.squash_output, n_envs)

    def collect(self, ticket: Ticket) -> ChunkReport:
        began = time.perf_counter()
        begins_run = bool(ticket.shares) and ticket.run != self._completed.run
        if begins_run:
            self._completed = self._completed.after(ticket.run, 0)
        share = self._completed.next_share(ticket.shares)
        if ticket.run != self.control.run or (ticket.shares and share is None):
            return ChunkReport(ticket.number, ticket.slot, None, None, began, began)
        self._pull(ticket.version if share is None else share.version)
        chunk = self.chunks.open(ticket.slot)
        if begins_run:
            self._leave_last_run(chunk, ticket)
        infos = InfoRecorder(ticket.infos)
        n_steps = self._fill(chunk, ticket, infos, self._is_due(chunk, ticket, share))
        seal, packed, n_episodes = None, None, 0
        if ticket.run == self.control.run:
            packed = infos.pack()
            if self._check_finite:
                check_chunk(chunk, n_steps, self._first_env)
            seal = Seal(ticket.number, self.policy.version, n_steps)
            self.chunks.seal(ticket.slot, seal)
            if share is not None:
                n_episodes = int(chunk.dones[:n_steps].sum())
                self._completed = self._completed.after(ticket.run, n_episodes)
        return ChunkReport(ticket.number, ticket.slot, seal, packed, began, time.perf_counter(), n_episodes)

    def _leave_last_run(self, chunk: Chunk, ticket: Ticket) -> None:
        """
        Have the next step begin an episode: the run before was abandoned, perhaps in the middle of one. That is broken
        off, unless a ``Monitor`` forbids it: then it is played to its end, and no rollout has it.
        """
        stack = self.stack
        if not any(map(refuses_early_resets, stack.envs.envs)):
            stack.needs_reset |= not stack.episode_starts.all()
            return
        while not (stack.needs_reset or stack.episode_starts.all()) and ticket.run == self.control.run:
            self._fill(chunk, ticket, InfoRecorder(ticket.infos), EndOfShare(chunk, 1))

    def _is_due(self, chunk: Chunk, ticket: Ticket, share: EpisodeShare | None) -> "_IsDue | None":
        """What ends the chunk before it is full, if anything does."""
        if share is not None:
            return EndOfShare(chunk, share.until - self._completed.number)
        lag = ticket.max_policy_lag
        return None if lag is None else _Due(self.control, self.policy.version + lag)

    def _pull(self, version: int | None) -> None:
        published = self.policy.pull(version)
        # Statistics may be published again within a version. Its weights are taken once: with them, actors draw
        # anew.
        identity = (self.control.run, self.policy.version)
        if published is not None and identity != self._loaded:
            self.actor.load_weights({name: published[name] for name in self.weight_names})
            self._loaded = identity

    def _fill(self, chunk: Chunk, ticket: Ticket, infos: InfoRecorder, is_due: "_IsDue | None") -> int:
        """Fill the chunk, from where the environments are. Returns the number of steps made."""
        self.stack.prepare(self.policy.weights, ticket.infos.every_step)
        if isinstance(self.stack.envs, VectorizedEnvs) and self.stack.envs.resets_late:
            n_steps = self._fill_from_blocks(chunk, self.stack.envs, ticket, infos, is_due)
        else:
            n_steps = self._fill_rows(chunk, ticket.n_steps, ticket.run, infos, is_due)
        self.stack.record_statistics(chunk, n_steps)
        return n_steps

    def _fill_from_blocks(
        self, chunk: Chunk, envs: VectorizedEnvs, ticket: Ticket, infos: InfoRecorder, is_due: "_IsDue | None"
    ) -> int:
        """The same for environments that reset some of them while they step others."""
        block = self._block = self._block or empty_block(chunk)
        made, n_calls = MadeSteps(envs, chunk, ticket.n_steps), 0
        while made.n_missing and ticket.run == self.control.run:
            if is_due is not None and made.n_complete > 0 and is_due(made.n_complete):
                break
            made.begin_block()
            infos_of_block = InfoRecorder(ticket.infos)
            n_calls = self._fill_rows(block, min(made.n_missing, block.capacity), ticket.run, infos_of_block, is_due)
            infos_of_block.move_to(infos, made.take(block, n_calls))
        if ticket.run == self.control.run:
            # Once more, for what the recorded steps led to: some environments have made more.
            self.actor.end_chunk(row(chunk.observations, made.n_complete), n_calls)
        made.finish(block)
        return made.n_complete

    def _fill_rows(self, chunk: Chunk, n_steps: int, run: int, infos: InfoRecorder, is_due: "_IsDue | None") -> int:
        """Fill rows of a chunk with one step each of all environments. Returns the number of steps made."""
        stack = self.stack
        stack.begin_chunk(chunk)
        copy_observations(stack.policy_layer.observations, row(chunk.observations, 0))
        chunk.episode_starts[0] = stack.episode_starts
        self.actor.begin_chunk(chunk)
        with stack.changing():
            n_made = self._step(chunk, n_steps, run, infos, is_due)
        stack.end_chunk(chunk, n_made)
        if run == self.control.run:
            self.actor.end_chunk(stack.policy_layer.observations, n_made)
        return n_made

    def _step(self, chunk: Chunk, n_steps: int, run: int, infos: InfoRecorder, is_due: "_IsDue | None") -> int:
        """The step loop. Returns the number of steps made."""
        envs, actor, control, to_env_actions = self.stack.policy_layer, self.actor, self.control, self.to_env_actions
        note, check_finite, first_env, step = infos.note, self._check_finite, self._first_env, 0
        observations = rows(chunk.observations, n_steps + 1)
        rewards, episode_starts = (list(array[: n_steps + 1]) for array in (chunk.rewards, chunk.episode_starts))

        def on_info(env: int, info: dict[str, Any], done: bool) -> None:
            if check_finite and done:
                check_terminal_observation(info.get(TERMINAL_OBSERVATION), step, first_env + env)
            if done and info.get(TRUNCATED) and TERMINAL_OBSERVATION in info:
                actor.bootstrap(info[TERMINAL_OBSERVATION], step, env)
            note(step, env, info, done)

        try:
            while step < n_steps and run == control.run:
                if is_due is not None and step > 0 and is_due(step):
                    break
                actions = to_env_actions(actor.act(observations[step], step))
                envs.step(actions, observations[step + 1], rewards[step], episode_starts[step + 1], on_info)
                step += 1
        except ObservationError as error:
            error.args = (f"{error}, in step {step} of the chunk",)
            raise
        return step


class _Due:
    """Says when a chunk should be delivered although it is not full: when it is too old, or has taken too long."""

    def __init__(self, control: Control, stale_version: int) -> None:
        self._control = control
        self._stale_version = stale_version
        self._deadline = time.perf_counter() + control.chunk_seconds

    def __call__(self, step: int) -> bool:
        return self._control.latest_version >= self._stale_version or time.perf_counter() >= self._deadline


def env_actions(action_space: spaces.Space, squash_output: bool, n_envs: int) -> Callable[[np.ndarray], np.ndarray]:
    """
    How SB3 turns a policy's actions into what the environments are given.

    :param squash_output: whether the policy gives actions in [-1, 1]
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
