"""
From the last layer of an off-policy algorithm's policy to actions, as SB3's algorithms choose them, in NumPy.

Continuous actions are those that a replay buffer holds: scaled to [-1, 1]. B is the number of environments of a
sampler.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sb3_walle.samplers.actors.exploration import EXPLORATION, ExplorationPlan
from sb3_walle.samplers.actors.numpy_heads import Head, HeadSpec
from sb3_walle.samplers.actors.numpy_layers import Linear, LinearLayer
from sb3_walle.samplers.actors.numpy_noise import Noise, NoiseSpec
from sb3_walle.transport.chunk import Chunk
from sb3_walle.transport.layout import Field

# Between which SB3 clips the logarithm of standard deviations.
LOWEST_LOG_STD, HIGHEST_LOG_STD = -20.0, 2.0


class ExploringHead(Head):
    """Chooses actions at random for as long as the learner says so, and then as the policy does."""

    def __init__(self, n_outputs: int, n_envs: int, random: np.random.Generator) -> None:
        super().__init__(n_outputs, n_envs, random)
        self._plan = ExplorationPlan()

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        if self._plan.load(weights):
            self._begin_episodes(np.ones(self._n_envs, dtype=bool))

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        self._episode_starts = list(chunk.episode_starts)

    def sample(self, step: int) -> None:
        is_random, rate = self._plan.next_step()
        episode_starts = self._episode_starts[step]
        if episode_starts.any():
            self._begin_episodes(episode_starts)
        self._record(step, self._random_actions() if is_random else self._policy_actions(self.output_rows[step], rate))

    def _begin_episodes(self, envs: np.ndarray) -> None:
        """
        :param envs: in which environments an episode begins, ``[B]``
        """

    @abstractmethod
    def _random_actions(self) -> np.ndarray:
        """:return: uniformly random actions, ``[action_dim, B]``"""

    @abstractmethod
    def _policy_actions(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        """
        :param outputs: of the last layer, ``[n_outputs, B]``
        :param rate: probability of a random action, of epsilon-greedy policies
        :return: actions, ``[action_dim, B]``
        """

    def _record(self, step: int, actions: np.ndarray) -> None:
        self._action_rows[step][...] = actions.T


@dataclass(frozen=True)
class ExploringSpec(HeadSpec):
    """How to build a head that explores."""

    @property
    def weight_names(self) -> tuple[str, ...]:
        return EXPLORATION

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        return (Field("actions", (n_steps, n_envs, *self.action_shape), self.dtype),)


class ContinuousExploringHead(ExploringHead):
    """
    Continuous actions, to which noise may be added.

    :param action_dim: number of elements of an action
    :param noise: what is added; ``None`` for nothing
    """

    def __init__(
        self, n_outputs: int, action_dim: int, n_envs: int, random: np.random.Generator, noise: NoiseSpec | None
    ) -> None:
        self._shape = (action_dim, n_envs)
        self._noise = None if noise is None else Noise(noise, n_envs, random)
        super().__init__(n_outputs, n_envs, random)

    def _begin_episodes(self, envs: np.ndarray) -> None:
        if self._noise is not None:
            self._noise.reset(envs)

    def _random_actions(self) -> np.ndarray:
        return self._random.uniform(-1.0, 1.0, self._shape)

    def _record(self, step: int, actions: np.ndarray) -> None:
        if self._noise is not None:
            actions = np.minimum(np.maximum(actions + self._noise.next(), -1.0), 1.0)
        super()._record(step, actions)


@dataclass(frozen=True)
class ContinuousExploringSpec(ExploringSpec):
    """
    :param noise: what is added to actions
    """

    noise: NoiseSpec | None


class DeterministicHead(ContinuousExploringHead):
    """The policies of DDPG and TD3: the outputs, squashed by tanh."""

    def _policy_actions(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        return np.tanh(outputs)


@dataclass(frozen=True)
class DeterministicSpec(ContinuousExploringSpec):
    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        action_dim = prod(self.action_shape)
        return DeterministicHead(action_dim, action_dim, n_envs, random, self.noise)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return np.tanh(outputs).T


class SquashedGaussianHead(ContinuousExploringHead):
    """
    SB3's ``SquashedDiagGaussianDistribution``, of SAC: the outputs are means and, after them, logarithms of standard
    deviations.
    """

    def _policy_actions(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        mean, log_std = outputs[: self._shape[0]], outputs[self._shape[0] :]
        std = np.exp(np.minimum(np.maximum(log_std, LOWEST_LOG_STD), HIGHEST_LOG_STD))
        return np.tanh(mean + std * self._random.standard_normal(self._shape, dtype=np.float32))


@dataclass(frozen=True)
class SquashedGaussianSpec(ContinuousExploringSpec):
    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        action_dim = prod(self.action_shape)
        return SquashedGaussianHead(2 * action_dim, action_dim, n_envs, random, self.noise)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return np.tanh(outputs[: prod(self.action_shape)]).T


class EpsilonGreedyHead(ExploringHead):
    """
    The policy of DQN: the outputs are values of the actions, of which the best one is taken, but for a random one now
    and then. SB3 decides for all environments of a process together, and here each has a chance of its own.
    """

    def __init__(self, n_actions: int, n_envs: int, random: np.random.Generator, fixed_rate: float | None) -> None:
        super().__init__(n_actions, n_envs, random)
        self._n_actions, self._fixed_rate = n_actions, fixed_rate

    def _random_actions(self) -> np.ndarray:
        return self._random.integers(self._n_actions, size=(1, self._n_envs))

    def _policy_actions(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        rate = rate if self._fixed_rate is None else self._fixed_rate
        best = outputs.argmax(axis=0)[np.newaxis]
        is_random = self._random.random((1, self._n_envs)) < rate
        return np.where(is_random, self._random_actions(), best) if is_random.any() else best


@dataclass(frozen=True)
class EpsilonGreedySpec(ExploringSpec):
    """
    How to build an :class:`EpsilonGreedyHead`.

    :param action_shape: shape of the action of one environment, ``()``
    :param fixed_rate: probability of a random action, if it is not what the learner plans
    """

    n_actions: int
    fixed_rate: float | None

    dtype = "<i8"

    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        return EpsilonGreedyHead(self.n_actions, n_envs, random, self.fixed_rate)

    def mode(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(axis=0)[:, np.newaxis]


class MeanOfQuantiles(LinearLayer):
    """
    From the last layer of QR-DQN, whose outputs are quantiles of each action's return, to their means. These are linear
    in its inputs, too, so that there is no need to compute the quantiles.

    :param layer: the last layer
    :param n_actions: number of actions
    """

    def __init__(self, layer: Linear, n_actions: int) -> None:
        self._names = layer.weight_names
        super().__init__((replace(layer, n_outputs=n_actions),))

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        of_quantiles = {name: weights[name].reshape(-1, self.n_rows, *weights[name].shape[1:]) for name in self._names}
        super().load_weights({name: array.mean(axis=0) for name, array in of_quantiles.items()})


@dataclass(frozen=True)
class QuantilesSpec(EpsilonGreedySpec):
    """The policy of QR-DQN: as DQN's, with means of quantiles as values."""

    def build_last_layer(self, layers: tuple[Linear, ...]) -> LinearLayer:
        (layer,) = layers
        return MeanOfQuantiles(layer, self.n_actions)
