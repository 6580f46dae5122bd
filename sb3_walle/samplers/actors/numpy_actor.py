"""Inference for multilayer-perceptron policies in NumPy: a sampler that uses it never imports PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sb3_walle.samplers.actors.numpy_heads import HeadSpec
from sb3_walle.samplers.actors.numpy_inputs import Input, read_inputs
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear, Network, with_row_of_ones
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class NumPyActorSpec:
    """
    How to build a :class:`NumPyActor`; see
    :func:`~sb3_walle.samplers.actors.numpy_export.export_numpy_actor` for one that runs a given policy.

    :param inputs: what becomes of the observations, in the order in which the features are concatenated
    :param layers: the layers between the features and the last one
    :param last_layer: the layer whose outputs are the parameters of the action distribution
    :param head: the action distribution
    :param seed: what determines the random numbers; samplers need different ones
    """

    inputs: tuple[Input, ...]
    layers: tuple[Linear | Activation, ...]
    last_layer: Linear
    head: HeadSpec
    seed: int | tuple[int, ...]

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Which entries of the policy's ``state_dict()`` the actor needs."""
        linear_layers = (*(layer for layer in self.layers if isinstance(layer, Linear)), self.last_layer)
        names = (*(name for layer in linear_layers for name in layer.weight_names), *self.head.weight_names)
        return tuple(dict.fromkeys(names))

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        The arrays that the actor records in a chunk: ``actions`` and ``log_probs``.

        :param n_steps: most steps that a chunk can hold, T
        :param n_envs: environments of a sampler, B
        :return: the fields
        """
        return self.head.fields(n_steps, n_envs)

    def for_successor(self, incarnation: int) -> "NumPyActorSpec":
        """
        :param incarnation: how many samplers have died before in the same place
        :return: the same actor with a random stream that no other has had
        """
        seed = self.seed if isinstance(self.seed, tuple) else (self.seed,)
        return replace(self, seed=(*seed, incarnation))

    def build(self, n_envs: int) -> "NumPyActor":
        """
        :param n_envs: environments of the sampler, B
        :return: the actor; its weights are undefined until they are loaded
        """
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
        features = with_row_of_ones(sum(item.size for item in spec.inputs), n_envs)
        self._read = read_inputs(spec.inputs, features[:-1])
        self._network = Network(spec.layers, features)
        self._last_layer = spec.head.build_last_layer(spec.last_layer)
        self._head = spec.head.build(n_envs, np.random.Generator(np.random.SFC64(np.random.SeedSequence(spec.seed))))

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """
        Take over a set of weights. The arrays are only valid during the call.

        :param weights: the arrays that :attr:`NumPyActorSpec.weight_names` names
        """
        self._network.load_weights(weights)
        self._last_layer.load_weights(weights)
        self._head.load_weights(weights)

    def begin_chunk(self, chunk: Chunk) -> None:
        """
        Record into this chunk from now on.

        :param chunk: the chunk that is about to be filled
        """
        self._actions = list(chunk.actions)
        self._head.begin_chunk(chunk)

    def act(self, observations: Observations, step: int) -> np.ndarray:
        """
        Choose the actions of one step, and record them in row ``step`` of the chunk.

        :param observations: ``[B, ...]``, or a dictionary of such arrays
        :param step: row of the chunk
        :return: the actions as the policy gives them, before clipping or rescaling, ``[B, ...]``; a view of the chunk
        """
        self._read(observations)
        self._network.run()
        self._last_layer.dot(self._network.latent, self._head.output_rows[step])
        self._head.sample(step)
        return self._actions[step]

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        """
        Nothing is recorded: only the learner has the value network.

        :param terminal_observation: the last observation of the episode, without a batch axis
        :param step: row of the chunk
        :param env: index of the environment within the sampler
        """

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        """
        Record the log-probabilities of the chunk's actions.

        :param observations: what the last step led to, ``[B, ...]``, or a dictionary of such arrays; not used
        :param n_steps: how many rows were filled
        """
        self._head.end_chunk(n_steps)
