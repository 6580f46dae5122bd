"""SB3's VecNormalize in a sampler: normalises with statistics that the learner publishes, and measures its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.infos import ORIGINAL_TERMINAL_OBSERVATION, TERMINAL_OBSERVATION
from sb3_walle.samplers.layers import EnvLayer, InnermostEnvs, OnInfo, copy_observations
from sb3_walle.transport.chunk import OBSERVATIONS, Chunk, Observations, between, named, observation_fields, row
from sb3_walle.transport.layout import Field

ORIGINAL_OBSERVATIONS = f"original_{OBSERVATIONS}"
ORIGINAL_REWARDS = "original_rewards"
#: stands for the discounted returns where others stand for a part of the observation; not a likely key of one
RETURNS = "#returns"
#: stands for an observation that is not a dictionary
WHOLE = OBSERVATIONS


def mean_of(part: str) -> str:
    """:return: name of the array with the mean of a part, in a publication as in a chunk"""
    return f"vec_normalize/{part}/mean"


def variance_of(part: str) -> str:
    """:return: name of the array with the variance of a part, in a publication as in a chunk"""
    return f"vec_normalize/{part}/var"


def parts_of(observations: Observations) -> Mapping[str, np.ndarray]:
    """:return: an array, or a dictionary of arrays, as a dictionary in either case"""
    return observations if isinstance(observations, dict) else {WHOLE: observations}


@dataclass(frozen=True)
class NormalizerSpec:
    """
    The arguments of a ``VecNormalize``; see there.

    :param original_space: what is observed below it
    :param observation_space: what is observed above it, as it declares it
    :param parts: which keys of a dictionary it normalises; ``(WHOLE,)`` if observations are no dictionary, nothing if
        it does not normalise them
    :param norm_reward: whether it normalises rewards
    :param clip_obs: largest absolute value of a normalised observation
    :param clip_reward: largest absolute value of a normalised reward
    :param gamma: discount factor of the returns whose variance rewards are divided by
    :param epsilon: added to variances
    :param for_evaluation: whether nothing is recorded, and rewards are those of the environments
    """

    original_space: spaces.Space
    observation_space: spaces.Space
    parts: tuple[str, ...]
    norm_reward: bool
    clip_obs: float
    clip_reward: float
    gamma: float
    epsilon: float
    for_evaluation: bool = False

    def build(self, inner: EnvLayer, envs: InnermostEnvs) -> "NormalizedEnvs":
        return (EvaluationEnvs if self.for_evaluation else NormalizedEnvs)(self, inner)

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        The arrays that a sampler records in a chunk in addition to the normalised ones.

        :return: original observations, ``[T + 1, B, ...]``, and original rewards, ``[T, B]``; mean and variance of the
            parts of the observations that steps led to and of the discounted returns over the chunk, each flat
        """
        originals = observation_fields(self.original_space, (n_steps + 1, n_envs))
        shapes = {part: self._shape(part) for part in self.parts} | {RETURNS: ()}
        sizes = {part: (prod(shape),) for part, shape in shapes.items()}
        moments = [Field(name(part), size, "<f8") for part, size in sizes.items() for name in (mean_of, variance_of)]
        return (
            *(replace(field, name=f"original_{field.name}") for field in originals),
            Field(ORIGINAL_REWARDS, (n_steps, n_envs), "<f4"),
            *moments,
        )

    def _shape(self, part: str) -> tuple[int, ...]:
        space = self.original_space
        shape = space.spaces[part].shape if isinstance(space, spaces.Dict) else space.shape
        assert shape is not None
        return shape


class NormalizedEnvs:
    """
    Environments whose observations and rewards are normalised as ``VecNormalize`` does it, with the statistics that
    were loaded last.

    It computes in the same precision and order, so that equal statistics give equal numbers to the last bit.
    """

    def __init__(self, spec: NormalizerSpec, inner: EnvLayer) -> None:
        self.inner = inner
        self.n_envs, self.action_space = inner.n_envs, inner.action_space
        self.observation_space = spec.observation_space
        self._spec = spec
        self.observations = self._empty_observations()
        self._means: dict[str, np.ndarray] = {}
        self._deviations: dict[str, np.ndarray] = {}
        self._returns_deviation = np.float64(1.0)
        self._returns = np.zeros(self.n_envs)
        # How many steps of the present chunk were made.
        self._step = 0
        self._is_outermost = False

    def load_statistics(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Normalise with other statistics from now on, and so what the environments show at present."""
        for part in self._spec.parts:
            self._means[part] = arrays[mean_of(part)].copy()
            self._deviations[part] = np.sqrt(arrays[variance_of(part)] + self._spec.epsilon)
        # A scalar of float64 as in VecNormalize, on which the type of the quotient depends.
        self._returns_deviation = np.sqrt(np.float64(arrays[variance_of(RETURNS)]) + self._spec.epsilon)
        self._normalize(self.inner.observations, self.observations)

    def begin_chunk(self, chunk: Chunk, is_outermost: bool) -> None:
        """
        Record into this chunk from now on.

        :param is_outermost: whether there is no layer around this one, so that normalised rewards are not read before
            the chunk ends
        """
        self._chunk, self._step, self._is_outermost = chunk, 0, is_outermost
        self._originals = named(chunk.arrays, ORIGINAL_OBSERVATIONS)
        self._original_rewards = chunk.arrays[ORIGINAL_REWARDS]
        copy_observations(self.inner.observations, row(self._originals, 0))

    def record_statistics(self, chunk: Chunk, n_steps: int) -> None:
        """Record the mean and variance of what the first steps of a chunk led to."""
        if n_steps == 0:
            return
        rewards = chunk.arrays[ORIGINAL_REWARDS][:n_steps]
        if self._is_outermost:
            self._normalize_rewards(rewards, chunk.rewards[:n_steps])
        led_to = parts_of(between(named(chunk.arrays, ORIGINAL_OBSERVATIONS), range(1, n_steps + 1)))
        for part in self._spec.parts:
            self._record_moments(chunk, part, led_to[part], axis=(0, 1))
        returns = self._discounted_returns(rewards, chunk.episode_starts[: n_steps + 1])
        self._record_moments(chunk, RETURNS, returns, axis=None)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        self.inner.reset(seeds, options)
        self._normalize(self.inner.observations, self.observations)

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        """
        Step every environment once, after :meth:`begin_chunk`. Normalised rewards are there now
        or after :meth:`record_statistics`; infos have both terminal observations, normalised and original.
        """

        def normalize_terminal(env: int, info: dict[str, Any], done: bool) -> None:
            if done:
                info[ORIGINAL_TERMINAL_OBSERVATION] = info[TERMINAL_OBSERVATION]
                info[TERMINAL_OBSERVATION] = self._normalized(info[TERMINAL_OBSERVATION])
            on_info(env, info, done)

        original, original_rewards = row(self._originals, self._step + 1), self._original_rewards[self._step]
        self.inner.step(actions, original, original_rewards, dones, normalize_terminal)
        self._normalize(original, observations)
        if not self._is_outermost:
            self._normalize_rewards(original_rewards, rewards)
        self._step += 1

    def keep(self, observations: Observations) -> None:
        copy_observations(observations, self.observations)
        if self._step > 0:
            self.inner.keep(row(self._originals, self._step))

    def _normalize(self, original: Observations, target: Observations) -> None:
        targets = parts_of(target)
        for part, array in parts_of(original).items():
            if part in self._means:
                self._standardize(part, array, targets[part])
            else:
                targets[part][...] = array

    def _normalized(self, original: Any) -> Any:
        """One observation of one environment, normalised into new arrays."""
        parts = dict(parts_of(original))
        for part in self._spec.parts:
            array = np.asarray(parts[part])
            parts[part] = np.empty(array.shape, np.float32)
            self._standardize(part, array, parts[part])
        return parts if isinstance(original, dict) else parts[WHOLE]

    def _standardize(self, part: str, original: np.ndarray, target: np.ndarray) -> None:
        standardized = np.subtract(original, self._means[part])
        np.divide(standardized, self._deviations[part], out=standardized)
        # In this order: np.clip() takes three times as long.
        np.maximum(standardized, -self._spec.clip_obs, out=standardized)
        np.minimum(standardized, self._spec.clip_obs, out=target, casting="same_kind")

    def _normalize_rewards(self, original: np.ndarray, target: np.ndarray) -> None:
        if not self._spec.norm_reward:
            target[...] = original
            return
        scaled = original / self._returns_deviation
        np.maximum(scaled, -self._spec.clip_reward, out=scaled)
        np.minimum(scaled, self._spec.clip_reward, out=target, casting="same_kind")

    def _discounted_returns(self, all_rewards: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
        """
        They continue from chunk to chunk, and begin anew with an episode.

        :param all_rewards: ``[T, B]``
        :param episode_starts: whether an episode begins with each step, ``[T + 1, B]``
        :return: of each step, ``[T, B]``
        """
        recorded = np.empty(all_rewards.shape)
        gamma = self._spec.gamma
        # Python's floats, which are NumPy's float64: for the few environments of a sampler, arrays take much longer.
        for env in range(self.n_envs):
            rewards, starts = all_rewards[:, env].tolist(), episode_starts[:-1, env].tolist()
            discounted, column = float(self._returns[env]), []
            for reward, starts_anew in zip(rewards, starts, strict=True):
                discounted = reward if starts_anew else discounted * gamma + reward
                column.append(discounted)
            recorded[:, env], self._returns[env] = column, discounted
        return recorded

    def _record_moments(self, chunk: Chunk, part: str, values: np.ndarray, axis: tuple[int, ...] | None) -> None:
        chunk.arrays[mean_of(part)][...] = values.mean(axis=axis, dtype=np.float64).reshape(-1)
        chunk.arrays[variance_of(part)][...] = values.var(axis=axis, dtype=np.float64).reshape(-1)

    def _empty_observations(self) -> Observations:
        originals = self.inner.observations
        arrays = {
            part: np.zeros(array.shape, np.float32 if part in self._spec.parts else array.dtype)
            for part, array in parts_of(originals).items()
        }
        return arrays if isinstance(originals, dict) else arrays[WHOLE]


class EvaluationEnvs(NormalizedEnvs):
    """The same for evaluation: there is no chunk to record into, and rewards stay as they are."""

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        inner = self.inner
        inner.step(actions, inner.observations, rewards, dones, on_info)
        inner.keep(inner.observations)
        self._normalize(inner.observations, observations)

    def keep(self, observations: Observations) -> None:
        copy_observations(observations, self.observations)
