"""Inference for LSTM policies without images in NumPy: a sampler that uses it never imports PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sb3_walle.samplers.actors.lstm_states import LSTM_STATES, lstm_fields
from sb3_walle.samplers.actors.numpy_heads import HeadSpec
from sb3_walle.samplers.actors.numpy_inputs import FlatInput, Input
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear, LinearLayer, Network
from sb3_walle.samplers.actors.numpy_lstm import Lstm, LstmLayers
from sb3_walle.samplers.actors.protocol import BOOTSTRAP_VALUES, LAST_VALUES, VALUES
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class Branch:
    """
    From features to the policy's outputs, or to values.

    :param lstm: what the features go through
    :param layers: the layers between the LSTM and the last one
    :param last_layer: gives the outputs
    """

    lstm: Lstm
    layers: tuple[Linear | Activation, ...]
    last_layer: Linear

    @property
    def weight_names(self) -> tuple[str, ...]:
        linear_layers = (*(layer for layer in self.layers if isinstance(layer, Linear)), self.last_layer)
        return (*self.lstm.weight_names, *(name for layer in linear_layers for name in layer.weight_names))


@dataclass(frozen=True)
class RecurrentNumPyActorSpec:
    """
    How to build a :class:`RecurrentNumPyActor`.

    :param inputs: what becomes of the observations, in the order in which the features are concatenated
    :param policy: gives what the head takes
    :param critic: gives values
    :param head: from the policy's outputs to actions
    :param seed: what determines the random numbers; samplers need different ones
    """

    inputs: tuple[Input, ...]
    policy: Branch
    critic: Branch
    head: HeadSpec
    seed: tuple[int, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        names = (*self.policy.weight_names, *self.critic.weight_names, *self.head.weight_names)
        # A layer may occur twice.
        return tuple(dict.fromkeys(names))

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """:return: those of the head, the values that torch's actor records, and the states before each step"""
        lstm = self.policy.lstm
        return (
            *self.head.fields(n_steps, n_envs),
            Field(VALUES, (n_steps, n_envs), "<f4"),
            Field(BOOTSTRAP_VALUES, (n_steps, n_envs), "<f4"),
            Field(LAST_VALUES, (n_envs,), "<f4"),
            *lstm_fields(n_steps, n_envs, lstm.n_layers, lstm.n_units),
        )

    def for_successor(self, incarnation: int) -> "RecurrentNumPyActorSpec":
        return replace(self, seed=(*self.seed, incarnation))

    def build(self, n_envs: int) -> "RecurrentNumPyActor":
        return RecurrentNumPyActor(self, n_envs)


class RecurrentNumPyActor:
    """
    Chooses actions with the weights of an LSTM policy, without PyTorch. The states of the LSTMs are zero at first and
    at the beginning of an episode, and continue from one chunk to the next.

    It computes values, too: they depend on the states of the critic's LSTM, which only the actor can carry along.

    :param spec: what the actor consists of
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, spec: RecurrentNumPyActorSpec, n_envs: int) -> None:
        self._branches = RunningBranches(spec, n_envs, spec.head.build_last_layer((spec.policy.last_layer,)))
        # For the last observation of a single episode.
        self._branches_of_one = RunningBranches(spec, 1)
        self._head = spec.head.build(n_envs, np.random.Generator(np.random.SFC64(np.random.SeedSequence(spec.seed))))

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self._branches.load_weights(weights)
        self._branches_of_one.load_weights(weights)
        self._head.load_weights(weights)

    def begin_chunk(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._actions = list(chunk.actions)
        self._values = chunk.arrays[VALUES].reshape(chunk.capacity, 1, -1)
        self._states = list(zip(*(chunk.arrays[name] for name in LSTM_STATES), strict=True))
        chunk.arrays[BOOTSTRAP_VALUES][...] = 0.0
        self._head.begin_chunk(chunk)

    def act(self, observations: Observations, step: int) -> np.ndarray:
        branches = self._branches
        hidden_pi, cell_pi, hidden_vf, cell_vf = self._states[step]
        branches.policy.lstm.record(hidden_pi, cell_pi)
        branches.critic.lstm.record(hidden_vf, cell_vf)
        starts = self._chunk.episode_starts[step]
        if starts.any():
            branches.policy.lstm.reset(starts)
            branches.critic.lstm.reset(starts)
        branches.run(observations, self._head.output_rows[step], self._values[step])
        self._head.sample(step)
        return self._actions[step]

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        of_one = self._branches_of_one
        for array, arrays in zip(of_one.critic.lstm.arrays, self._branches.critic.lstm.arrays, strict=True):
            array[:, 0] = arrays[:, env]
        value = np.empty((1, 1), np.float32)
        of_one.evaluate(_batch_of_one(terminal_observation), value)
        self._chunk.arrays[BOOTSTRAP_VALUES][step, env] = value[0, 0]

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        self._head.end_chunk(n_steps)
        # The next chunk's first step goes through the LSTM again.
        lstm = self._branches.critic.lstm
        arrays = lstm.arrays
        before = [array.copy() for array in arrays]
        lstm.reset(self._chunk.episode_starts[n_steps])
        self._branches.evaluate(observations, self._chunk.arrays[LAST_VALUES].reshape(1, -1))
        for array, values in zip(arrays, before, strict=True):
            array[...] = values


class RunningBranches:
    """
    A policy and its critic, with the states of their LSTMs.

    :param spec: what they consist of
    :param n_envs: number of environments, B
    :param last_layer: of the policy, if its outputs are laid out for a head
    """

    def __init__(self, spec: RecurrentNumPyActorSpec, n_envs: int, last_layer: LinearLayer | None = None) -> None:
        self._features = Network(spec.inputs, (), n_envs)
        self.policy = _Layers(spec.policy, last_layer or LinearLayer((spec.policy.last_layer,)), n_envs)
        self.critic = _Layers(spec.critic, LinearLayer((spec.critic.last_layer,)), n_envs)

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self.policy.load_weights(weights)
        self.critic.load_weights(weights)

    def run(self, observations: Observations, outputs: np.ndarray, values: np.ndarray) -> None:
        """
        Make a step.

        :param observations: ``[B, ...]``, or a dictionary of such arrays
        :param outputs: receives what the head takes, ``[n_outputs, B]``
        :param values: receives the values, ``[1, B]``
        """
        self._features.run(observations)
        features = self._features.latent[:-1]
        self.policy.run(features, outputs)
        self.critic.run(features, values)

    def evaluate(self, observations: Observations, values: np.ndarray) -> None:
        """Make a step of the critic alone, see :meth:`run`."""
        self._features.run(observations)
        self.critic.run(self._features.latent[:-1], values)


class _Layers:
    """A branch with the states of its LSTM."""

    def __init__(self, spec: Branch, last_layer: LinearLayer, n_envs: int) -> None:
        self.lstm = LstmLayers(spec.lstm, n_envs)
        self._network = Network((FlatInput(None, (spec.lstm.n_units,)),), spec.layers, n_envs)
        self._last_layer = last_layer
        self._lstm_outputs = self.lstm.outputs.T

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for part in (self.lstm, self._network, self._last_layer):
            part.load_weights(weights)

    def run(self, features: np.ndarray, outputs: np.ndarray) -> None:
        """
        :param features: ``[n_features, B]``
        :param outputs: receives those of the last layer, ``[n_outputs, B]``
        """
        self.lstm.run(features)
        self._network.run(self._lstm_outputs)
        self._last_layer.dot(self._network.latent, outputs)


def _batch_of_one(observation: Any) -> Observations:
    if isinstance(observation, dict):
        return {key: np.asarray(part)[np.newaxis] for key, part in observation.items()}
    return np.asarray(observation)[np.newaxis]
