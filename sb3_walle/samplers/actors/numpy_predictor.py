"""Predicts what a multilayer-perceptron policy does where it is deterministic, in NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_layers import Network
from sb3_walle.samplers.env_actions import env_actions
from sb3_walle.transport.chunk import Observations


@dataclass(frozen=True)
class NumPyPredictorSpec:
    """
    How to build a :class:`NumPyPredictor`.

    :param actor: what the policy consists of
    :param weights: its weights by name
    :param action_space: the policy's action space
    :param squash_output: whether it gives actions in [-1, 1], to be rescaled to the action space
    """

    actor: NumPyActorSpec
    weights: Mapping[str, np.ndarray]
    action_space: spaces.Space
    squash_output: bool

    def build(self, n_envs: int, sampler: int) -> "NumPyPredictor":
        return NumPyPredictor(self, n_envs)


class NumPyPredictor:
    """
    The layers of a policy, and the mode of its action distribution.

    :param spec: the policy
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, spec: NumPyPredictorSpec, n_envs: int) -> None:
        actor = spec.actor
        self._head = actor.head
        self._network = Network(actor.inputs, actor.layers, n_envs)
        self._last_layer = actor.head.build_last_layer(actor.last_layers)
        self._network.load_weights(spec.weights)
        self._last_layer.load_weights(spec.weights)
        self._outputs = np.empty((self._last_layer.n_rows, n_envs), dtype=np.float32)
        self._shape = (n_envs, *actor.head.action_shape)
        self._to_env_actions = env_actions(spec.action_space, spec.squash_output, n_envs)

    def predict(self, observations: Observations, episode_starts: np.ndarray) -> np.ndarray:
        self._network.run(observations)
        self._last_layer.dot(self._network.latent, self._outputs)
        return self._to_env_actions(self._head.mode(self._outputs).reshape(self._shape))
