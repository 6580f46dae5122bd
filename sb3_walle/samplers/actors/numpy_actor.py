"""Inference for multilayer-perceptron policies in NumPy: a sampler that uses it never imports PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sb3_walle.samplers.actors.numpy_heads import HeadSpec
from sb3_walle.samplers.actors.numpy_inputs import Input
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear, Network
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class NumPyActorSpec:
    """
    How to build a :class:`NumPyActor`; see
    :func:`~sb3_walle.samplers.actors.numpy_export.export_numpy_actor` for one that runs a given policy.

    :param inputs: what becomes of the observations, in the order in which the features are concatenated
    :param layers: the layers between the features and the last ones
    :param last_layers: the layers whose outputs, one after the other, are what the head takes
    :param head: from these outputs to actions
    :param seed: what determines the random numbers; samplers need different ones
    """

    inputs: tuple[Input, ...]
    layers: tuple[Linear | Activation, ...]
    last_layers: tuple[Linear, ...]
    head: HeadSpec
    seed: tuple[int, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        linear_layers = (*(layer for layer in self.layers if isinstance(layer, Linear)), *self.last_layers)
        names = (*(name for layer in linear_layers for name in layer.weight_names), *self.head.weight_names)
        # A layer may occur twice.
        return tuple(dict.fromkeys(names))

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        return self.head.fields(n_steps, n_envs)

    def for_successor(self, incarnation: int) -> "NumPyActorSpec":
        return replace(self, seed=(*self.seed, incarnation))

    def build(self, n_envs: int) -> "NumPyActor":
        return NumPyActor(self, n_envs)


class NumPyActor:
    """
    Chooses actions with a policy's weights, without PyTorch.

    It has no value network: what needs values is left to the learner. The actions are a function of the seed, the
    weights, and the chunks and observations since the actor was built; a chunk's random numbers are drawn when it
    begins, for as many steps as it can hold. All steps of a chunk must use the same weights.

    :param spec: what the actor consists of
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, spec: NumPyActorSpec, n_envs: int) -> None:
        self._network = Network(spec.inputs, spec.layers, n_envs)
        self._last_layer = spec.head.build_last_layer(spec.last_layers)
        self._head = spec.head.build(n_envs, np.random.Generator(np.random.SFC64(np.random.SeedSequence(spec.seed))))

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self._network.load_weights(weights)
        self._last_layer.load_weights(weights)
        self._head.load_weights(weights)

    def begin_chunk(self, chunk: Chunk) -> None:
        self._actions = list(chunk.actions)
        self._head.begin_chunk(chunk)

    def act(self, observations: Observations, step: int) -> np.ndarray:
        self._network.run(observations)
        self._last_layer.dot(self._network.latent, self._head.output_rows[step])
        self._head.sample(step)
        return self._actions[step]

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        """Nothing is recorded: only the learner has the value network."""

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        self._head.end_chunk(n_steps)
