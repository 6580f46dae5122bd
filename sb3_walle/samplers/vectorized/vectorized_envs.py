"""The environments of one sampler where they are one object, which steps all of them in one call."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.samplers.errors import ObservationError
from sb3_walle.samplers.infos import EPISODE, TERMINAL_OBSERVATION, TRUNCATED
from sb3_walle.samplers.layers import SETTER_PREFIX, OnInfo, copy_observations, empty_observations, store
from sb3_walle.samplers.monitor import monitor_files
from sb3_walle.samplers.observation_check import MISFITS, as_stored, wrong_observation, wrong_observations
from sb3_walle.samplers.vectorized.episode_statistics import EpisodeStatistics
from sb3_walle.samplers.vectorized.factory import VectorFactory
from sb3_walle.samplers.vectorized.kinds import adapter_of
from sb3_walle.samplers.vectorized.protocol import VectorStep
from sb3_walle.transport.chunk import Observations, row
from sb3_walle.transport.pulse import Pulse


class VectorizedEnvs:
    """
    B environments in one object, with the semantics of SB3's ``VecEnv``: the same to layers as
    :class:`~sb3_walle.samplers.envs.SamplerEnvs`. A *row* is one of them.

    Where rows can only be reset together with a step of the others, :attr:`resets_late` is true. Then a row whose
    episode has ended shows the last observation of that episode, and the next step does nothing in it but reset it.

    :param factory: builds the vectorised environment, once more where SB3 seeds it and the function takes a seed
    :param env: what it has built first
    :param pulse: told whenever a step or a reset begins; ``None`` where no step is timed
    :param first_env: number of the first environment among those of all samplers
    :param incarnation: how many samplers with these environments have died before
    :raises VectorizedEnvError: for a kind that samplers do not step
    """

    def __init__(
        self, factory: VectorFactory, env: Any, pulse: Pulse | None = None, first_env: int = 0, incarnation: int = 0
    ) -> None:
        self._factory, self._incarnation = factory, incarnation
        self.first_env, self.pulse = first_env, pulse
        self._adapter = adapter_of(env, first_env, incarnation)
        #: number of environments, B
        self.n_envs = self._adapter.n_envs
        self.observation_space, self.action_space = self._adapter.observation_space, self._adapter.action_space
        #: Gymnasium's metadata
        self.metadata = self._adapter.metadata
        #: the single environments, as far as this process has them
        self.envs: list[gym.Env] = self._adapter.single_envs
        #: process and address of each environment, which no two have in common
        self.identities = _identities(env, self.envs, self.n_envs)
        #: names of the monitor files that each environment writes
        self.monitor_files = [monitor_files(env) for env in self.envs]
        #: whether the next step only resets the rows whose episode has ended
        self.resets_late = self._adapter.resets_late
        #: rows that the next step only resets, ``[B]``
        self.awaits_reset = np.zeros(self.n_envs, dtype=bool)
        #: rows that show no continuation of what was recorded last, as far as the environments reset late, ``[B]``
        self.starts_anew = np.ones(self.n_envs, dtype=bool)
        #: whether each step tells the info of every row, or only those of episodes that end
        self.tells_every_info = True
        #: what the environments show at present, ``[B, ...]``
        self.observations = empty_observations(self.observation_space, self.n_envs)
        #: what the last reset of each environment returned together with the observation
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.n_envs)]
        self._statistics = EpisodeStatistics(self.n_envs)
        # What was set and has to be set again in environments that are built anew.
        self._setters: dict[tuple[str, tuple[int, ...]], Callable[[], object]] = {}
        # Where last observations are stored to see whether they fit.
        self._final = empty_observations(self.observation_space, self.n_envs)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        if self._factory.takes_seed and seeds[0] is not None:
            self._build_anew(int(seeds[0]))
        self._beat()
        first = self._adapter.reset(seeds, options)
        self._store(first.observations, self.observations)
        self.reset_infos = [first.info(index) for index in range(self.n_envs)]
        self._statistics.restart()
        self.awaits_reset[:], self.starts_anew[:] = False, True

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        self._beat()
        step = self._adapter.step(np.asarray(actions))
        self._store(step.observations, observations)
        rewards[...], dones[...] = step.rewards, step.dones
        self._statistics.add(step.rewards)
        only_reset: np.ndarray | None = None
        if self.resets_late:
            only_reset = self.starts_anew = self.awaits_reset
            if only_reset.any():
                self._leave_out(only_reset, step, rewards, dones)
            self.awaits_reset = dones.copy()
        has_ended = bool(dones.any())
        if has_ended or self.tells_every_info or step.tells_of_episode is not None:
            for index in self._told_rows(step, dones, only_reset):
                self._tell(step, index, bool(dones[index]), observations, on_info)
        if has_ended:
            ended = np.flatnonzero(dones)
            self._statistics.restart(ended)
            self._begin_episodes(step, ended, observations)

    def keep(self, observations: Observations) -> None:
        copy_observations(observations, self.observations)

    def close(self) -> None:
        self._adapter.close()

    def render(self, indices: Sequence[int]) -> list[Any]:
        """:return: one frame of each environment"""
        frames = self._adapter.render()
        return [frames[index] for index in indices]

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """:return: an attribute of each environment, or of the vectorised one where it keeps none of their own"""
        return self._adapter.get_attr(name, indices)

    def has_attr(self, name: str, indices: Sequence[int]) -> list[bool]:
        """:return: whether :meth:`get_attr` finds an attribute"""
        return self._adapter.has_attr(name, indices)

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        """Set an attribute where :meth:`get_attr` reads it."""
        self._adapter.set_attr(name, value, indices)
        self._note_setter(name, indices, lambda: self._adapter.set_attr(name, value, indices))

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], indices: Sequence[int]) -> list[Any]:
        """:return: what a method of each environment, or of the vectorised one, returns"""
        if name == "render" and not args and not kwargs:
            return self.render(indices)
        results = self._adapter.env_method(name, args, kwargs, indices)
        if name.startswith(SETTER_PREFIX):
            self._note_setter(name, indices, lambda: self._adapter.env_method(name, args, kwargs, indices))
        return results

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Sequence[int]) -> list[bool]:
        return self._adapter.env_is_wrapped(wrapper_class, indices)

    def _note_setter(self, name: str, indices: Sequence[int], repeat: Callable[[], object]) -> None:
        if self._factory.takes_seed:
            # To the end: in the order in which the last of each were called.
            key = (name, tuple(indices))
            self._setters.pop(key, None)
            self._setters[key] = repeat

    def _build_anew(self, seed: int) -> None:
        self._adapter.close()
        self._adapter = adapter_of(self._factory(seed), self.first_env, self._incarnation)
        self.envs = self._adapter.single_envs
        for repeat in self._setters.values():
            repeat()

    def _beat(self) -> None:
        if self.pulse is not None:
            self.pulse.beat()

    def _leave_out(self, only_reset: np.ndarray, step: VectorStep, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Rows that this step only resets: it makes no step of theirs."""
        rewards[only_reset], dones[only_reset] = 0.0, False
        self._statistics.restart(only_reset)
        for index in np.flatnonzero(only_reset):
            self.reset_infos[index] = step.info(int(index))

    def _told_rows(self, step: VectorStep, dones: np.ndarray, only_reset: np.ndarray | None) -> Iterable[int]:
        """The rows whose info is told."""
        if self.tells_every_info:
            if only_reset is None:
                return range(self.n_envs)
            return np.flatnonzero(~only_reset).tolist()
        told = dones
        if step.tells_of_episode is not None:
            told = dones | step.tells_of_episode
            if only_reset is not None:
                told &= ~only_reset
        return np.flatnonzero(told).tolist()

    def _tell(self, step: VectorStep, index: int, done: bool, observations: Observations, on_info: OnInfo) -> None:
        info = step.info(index)
        info[TRUNCATED] = done and bool(step.is_truncated(index))
        if done:
            info[TERMINAL_OBSERVATION] = self._last_observation(step, index, observations)
            if EPISODE not in info:
                info[EPISODE] = self._statistics.episode(index)
        on_info(index, info, done)

    def _last_observation(self, step: VectorStep, index: int, observations: Observations) -> Any:
        if not step.has_reset:
            shown = row(observations, index)
            return {key: part.copy() for key, part in shown.items()} if isinstance(shown, dict) else shown.copy()
        last = step.final_observation(index)
        try:
            store(self._final, index, last)
        except MISFITS as error:
            number = self.first_env + index
            raise wrong_observation(
                last, "the last observation of an episode", number, self.observation_space
            ) from error
        return as_stored(last, self._final, index)

    def _begin_episodes(self, step: VectorStep, ended: np.ndarray, observations: Observations) -> None:
        """In the rows whose episode has ended, unless the next step does that."""
        if step.has_reset:
            for index in ended.tolist():
                self.reset_infos[index] = step.reset_info(index)
        elif not self.resets_late:
            self._beat()
            first = self._adapter.reset_rows(ended)
            self._store(first.observations, observations, ended)
            for index in ended.tolist():
                self.reset_infos[index] = first.info(index)

    def _store(self, source: Any, target: Observations, rows: np.ndarray | None = None) -> None:
        """Copy observations of all rows, or of some, into a batch."""
        try:
            if isinstance(target, dict):
                for key, array in target.items():
                    _copy_rows(source[key], array, rows)
            else:
                _copy_rows(source, target, rows)
        except MISFITS as error:
            raise self._wrong(source, rows) from error

    def _wrong(self, source: Any, rows: np.ndarray | None) -> ObservationError:
        n_rows = self.n_envs if rows is None else len(rows)
        return wrong_observations(source, n_rows, self.first_env, self.observation_space)


def _copy_rows(source: Any, target: np.ndarray, rows: np.ndarray | None) -> None:
    shape = target.shape if rows is None else (len(rows), *target.shape[1:])
    if np.shape(source) != shape:
        raise ValueError(f"{np.shape(source)} is not {shape}")
    if rows is None:
        target[...] = source
    else:
        target[rows] = source


def _identities(env: Any, single_envs: Sequence[gym.Env], n_envs: int) -> list[tuple[int, ...]]:
    if len(single_envs) == n_envs:
        return [(os.getpid(), id(single.unwrapped)) for single in single_envs]
    return [(os.getpid(), id(getattr(env, "unwrapped", env)), index) for index in range(n_envs)]
