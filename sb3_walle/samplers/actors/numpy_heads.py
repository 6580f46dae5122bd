"""
From the last layer of a policy to actions and log-probabilities, as SB3's action distributions give them, in NumPy.

What can be computed for all steps of a chunk together is: the noise is drawn at its start, and the log-probabilities
are computed at its end. T is the number of steps that the chunk can hold, B the environments of its sampler.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, pi, prod
from typing import ClassVar

import numpy as np

from sb3_walle.samplers.actors.numpy_layers import Linear, LinearLayer
from sb3_walle.samplers.actors.protocol import LOG_PROBS
from sb3_walle.transport.chunk import Chunk
from sb3_walle.transport.layout import Field

LOG_STD = "log_std"
# Logit of the categories that only fill up the shorter distributions of a MultiDiscrete space: out of the reach of any
# logit and of its noise, but finite, so that nothing it meets becomes NaN.
FILLER_LOGIT = -1e30


class Head(ABC):
    """
    Chooses actions from what the last layer of a policy gives.

    :param n_outputs: number of outputs of the last layer
    :param n_envs: environments of the sampler, B
    :param random: where random numbers come from
    """

    def __init__(self, n_outputs: int, n_envs: int, random: np.random.Generator) -> None:
        self._random = random
        self._n_envs = n_envs
        self._allocate((0, n_outputs, n_envs))

    def begin_chunk(self, chunk: Chunk) -> None:
        if chunk.capacity != len(self._outputs):
            self._allocate((chunk.capacity, *self._outputs.shape[1:]))
        self._actions = chunk.actions.reshape(chunk.capacity, self._n_envs, -1)
        self._action_rows = list(self._actions)

    def end_chunk(self, n_steps: int) -> None:  # noqa: B027 - heads that explore have nothing left to do
        """
        :param n_steps: how many rows of the chunk were filled
        """

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - most heads have no weights
        """
        :param weights: the arrays that the head's spec names, among others
        """

    @abstractmethod
    def sample(self, step: int) -> None:
        """
        Record the actions that the outputs of one step give.

        :param step: row of the chunk
        """

    def _allocate(self, shape: tuple[int, int, int]) -> None:
        self._outputs = np.zeros(shape, dtype=np.float32)
        # Looked up once: the array stays where it is.
        #: what the last layer gave at each step, ``[n_outputs, B]`` each; they are written by the layer
        self.output_rows = list(self._outputs)


@dataclass(frozen=True)
class HeadSpec(ABC):
    """
    How to build a head.

    :param action_shape: shape of the action of one environment
    """

    action_shape: tuple[int, ...]

    #: data type of the actions
    dtype: ClassVar[str] = "<f4"

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Which published arrays the head needs, those of the last layers apart."""
        return ()

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        The arrays that the head records in a chunk.

        :param n_steps: most steps that a chunk can hold, T
        :param n_envs: environments of a sampler, B
        """
        return (
            Field("actions", (n_steps, n_envs, *self.action_shape), self.dtype),
            Field(LOG_PROBS, (n_steps, n_envs), "<f4"),
        )

    def build_last_layer(self, layers: tuple[Linear, ...]) -> LinearLayer:
        """
        :param layers: the last layers of the policy
        :return: the layer that gives the head's outputs
        """
        return LinearLayer(layers)

    @abstractmethod
    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        """
        :param n_envs: environments of the sampler, B
        :param random: where random numbers come from
        """

    @abstractmethod
    def mode(self, outputs: np.ndarray) -> np.ndarray:
        """
        :param outputs: of the last layer, ``[n_outputs, B]``
        :return: the actions that the policy takes where it is deterministic, ``[B, action_dim]``
        """


class DistributionHead(Head):
    """An action distribution: chooses the actions of a chunk and computes their log-probabilities."""

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        self._log_probs = chunk.arrays[LOG_PROBS]
        self._draw_noise()

    def end_chunk(self, n_steps: int) -> None:
        self._log_probs[:n_steps] = self._compute_log_probs(self._outputs[:n_steps], self._actions[:n_steps])

    def _allocate(self, shape: tuple[int, int, int]) -> None:
        super()._allocate(shape)
        self._noise = np.zeros(shape, dtype=np.float32)
        self._noise_rows = list(self._noise)

    @abstractmethod
    def _draw_noise(self) -> None:
        """Fill ``_noise``."""

    @abstractmethod
    def _compute_log_probs(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """
        :param outputs: of the last layer, ``[n_steps, n_outputs, B]``
        :param actions: ``[n_steps, B, action_dim]``
        :return: log-probabilities, ``[n_steps, B]``
        """


class GaussianHead(DistributionHead):
    """SB3's ``DiagGaussianDistribution``: the outputs are the means."""

    def __init__(self, n_outputs: int, n_envs: int, random: np.random.Generator) -> None:
        super().__init__(n_outputs, n_envs, random)
        self._std = np.ones((n_outputs, 1), dtype=np.float32)
        self._log_normalizer = 0.0
        self._sampled = np.empty((n_outputs, n_envs), dtype=np.float32)

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        log_std = weights[LOG_STD]
        np.exp(log_std[:, np.newaxis], out=self._std)
        self._log_normalizer = float(log_std.sum(dtype=np.float64)) + 0.5 * len(log_std) * log(2.0 * pi)
        self._scale_noise()

    def sample(self, step: int) -> None:
        if self._n_envs == 1:
            np.add(self.output_rows[step], self._noise_rows[step], self._by_output[step])
        else:
            # Adding in one memory order and copying to the other is faster than adding into the other.
            self._by_output[step][...] = np.add(self.output_rows[step], self._noise_rows[step], self._sampled)

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        # The actions in the order of the outputs, ``[n_outputs, B]`` each.
        self._by_output = list(self._actions.transpose(0, 2, 1))

    def _allocate(self, shape: tuple[int, int, int]) -> None:
        super()._allocate(shape)
        self._standard_noise = np.zeros(shape, dtype=np.float32)

    def _draw_noise(self) -> None:
        self._random.standard_normal(dtype=np.float32, out=self._standard_noise)
        self._scale_noise()

    def _scale_noise(self) -> None:
        np.multiply(self._standard_noise, self._std, out=self._noise)

    def _compute_log_probs(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        # Not from the noise: where the deviation is small, little of the noise is left in an action of float32.
        standardized = (actions.transpose(0, 2, 1) - outputs) / self._std
        return -0.5 * np.square(standardized).sum(axis=1) - self._log_normalizer


@dataclass(frozen=True)
class GaussianSpec(HeadSpec):
    @property
    def weight_names(self) -> tuple[str, ...]:
        return (LOG_STD,)

    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        return GaussianHead(prod(self.action_shape), n_envs, random)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.T


class CategoricalHead(DistributionHead):
    """
    SB3's ``CategoricalDistribution`` and ``MultiCategoricalDistribution``: the outputs are logits, and every
    distribution's are filled up to as many as the largest has, so that all are sampled at once.

    :param n_distributions: number of independent distributions, K
    :param n_categories: most categories that one of them has, N
    """

    def __init__(self, n_distributions: int, n_categories: int, n_envs: int, random: np.random.Generator) -> None:
        self._shape = (n_distributions, n_categories, n_envs)
        super().__init__(n_distributions * n_categories, n_envs, random)
        self._noisy = np.empty((n_distributions * n_categories, n_envs), dtype=np.float32)
        self._noisy_by_env = self._noisy.reshape(self._shape).transpose(2, 0, 1)

    def sample(self, step: int) -> None:
        np.add(self.output_rows[step], self._noise_rows[step], self._noisy)
        self._noisy_by_env.argmax(-1, self._action_rows[step])

    def _draw_noise(self) -> None:
        # The largest of logits with Gumbel noise is a sample of their distribution, and no probability is computed.
        # In float64, for float32 would be too coarse near zero, and so take rare actions too often.
        exponential = self._random.standard_exponential(self._noise.shape)
        np.negative(np.log(exponential, out=exponential), out=self._noise, casting="same_kind")

    def _compute_log_probs(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        logits = outputs.reshape(-1, *self._shape)
        logits = logits - logits.max(axis=2, keepdims=True)
        chosen = np.take_along_axis(logits, actions.transpose(0, 2, 1)[:, :, np.newaxis], axis=2)
        normalizers = np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return (chosen - normalizers).sum(axis=(1, 2))


@dataclass(frozen=True)
class CategoricalSpec(HeadSpec):
    """
    How to build a :class:`CategoricalHead`.

    :param action_shape: shape of the action of one environment, ``()`` or ``(len(sizes),)``
    :param sizes: number of categories of each distribution
    """

    sizes: tuple[int, ...]

    dtype = "<i8"

    def build_last_layer(self, layers: tuple[Linear, ...]) -> LinearLayer:
        is_category = np.arange(max(self.sizes)) < np.array(self.sizes)[:, np.newaxis]
        return LinearLayer(layers, np.flatnonzero(is_category), is_category.size, FILLER_LOGIT)

    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        return CategoricalHead(len(self.sizes), max(self.sizes), n_envs, random)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(len(self.sizes), max(self.sizes), -1).argmax(axis=1).T


class BernoulliHead(DistributionHead):
    """SB3's ``BernoulliDistribution``: the outputs are logits."""

    def __init__(self, n_outputs: int, n_envs: int, random: np.random.Generator) -> None:
        super().__init__(n_outputs, n_envs, random)
        self._chosen = np.empty((n_outputs, n_envs), dtype=np.bool_)

    def sample(self, step: int) -> None:
        np.greater(self.output_rows[step], self._noise_rows[step], self._chosen)
        self._action_rows[step][...] = self._chosen.T

    def _draw_noise(self) -> None:
        # A logit is above logistic noise with the probability that it stands for.
        self._noise[...] = self._random.logistic(size=self._noise.shape)

    def _compute_log_probs(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        logits_of_opposite = outputs * (1.0 - 2.0 * actions.transpose(0, 2, 1))
        return -np.logaddexp(0.0, logits_of_opposite, dtype=np.float32).sum(axis=1)


@dataclass(frozen=True)
class BernoulliSpec(HeadSpec):
    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        return BernoulliHead(prod(self.action_shape), n_envs, random)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs > 0.0).T.astype(np.float32)
