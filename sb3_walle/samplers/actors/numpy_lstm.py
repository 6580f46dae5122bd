"""LSTMs in NumPy. As in other layers, environments are in columns, and a row of ones stands for the bias."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lstm:
    """
    A ``torch.nn.LSTM`` of one direction, without projections.

    :param name: its name in the policy
    """

    name: str
    n_inputs: int
    n_units: int
    n_layers: int
    has_bias: bool

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of its weights in the policy's ``state_dict()``."""
        return tuple(name for layer in range(self.n_layers) for name in self.names_of_layer(layer))

    def names_of_layer(self, layer: int) -> tuple[str, ...]:
        """:return: names of the weights of a layer: of its inputs, of its own hidden state, and of two biases"""
        kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.has_bias else ()))
        return tuple(f"{self.name}.{kind}_l{layer}" for kind in kinds)


class LstmLayers:
    """
    An LSTM with its states, which are zero at first.

    :param spec: the LSTM
    :param n_envs: number of environments, B
    """

    def __init__(self, spec: Lstm, n_envs: int) -> None:
        self._spec = spec
        self._layers = [
            _Layer(spec.n_units if layer else spec.n_inputs, spec.n_units, n_envs) for layer in range(spec.n_layers)
        ]
        #: what it gives, ``[n_units, B]``: the hidden states of the last layer
        self.outputs = self._layers[-1].hidden

    @property
    def arrays(self) -> list[np.ndarray]:
        """The hidden state and the cell state of each layer, ``[n_units, B]`` each."""
        return [array for layer in self._layers for array in (layer.hidden, layer.cell)]

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for number, layer in enumerate(self._layers):
            layer.load_weights([weights[name] for name in self._spec.names_of_layer(number)])

    def reset(self, envs: np.ndarray) -> None:
        """
        Have states be zero.

        :param envs: for which environments, ``[B]``
        """
        for layer in self._layers:
            layer.hidden[:, envs] = 0.0
            layer.cell[:, envs] = 0.0

    def record(self, hidden: np.ndarray, cell: np.ndarray) -> None:
        """Copy the states of all layers to ``[B, n_layers, n_units]``."""
        for number, layer in enumerate(self._layers):
            hidden[:, number] = layer.hidden.T
            cell[:, number] = layer.cell.T

    def run(self, inputs: np.ndarray) -> None:
        """
        Make a step.

        :param inputs: ``[n_inputs, B]``
        """
        for layer in self._layers:
            layer.run(inputs)
            inputs = layer.hidden


class _Layer:
    def __init__(self, n_inputs: int, n_units: int, n_envs: int) -> None:
        # One product for the inputs, the hidden state and the bias.
        self._joined = np.zeros((n_inputs + n_units + 1, n_envs), dtype=np.float32)
        self._joined[-1] = 1.0
        self._inputs, self.hidden = self._joined[:n_inputs], self._joined[n_inputs:-1]
        self.cell = np.zeros((n_units, n_envs), dtype=np.float32)
        # Output by input in memory: for so many outputs of a few environments, BLAS is faster at it.
        self._weight = np.zeros((4 * n_units, n_inputs + n_units + 1), dtype=np.float32)
        self._n_inputs, self._n_units = n_inputs, n_units
        self._gates = np.empty((4 * n_units, n_envs), dtype=np.float32)
        self._input_gate, self._forget_gate, self._output_gate, self._candidate = self._gates.reshape(
            4, n_units, n_envs
        )
        self._sigmoids = self._gates[: 3 * n_units]
        self._half = np.full_like(self._sigmoids, 0.5)

    def load_weights(self, weights: list[np.ndarray]) -> None:
        of_inputs, of_hidden, *biases = weights
        joined = np.zeros_like(self._weight)
        joined[:, : self._n_inputs], joined[:, self._n_inputs : -1] = of_inputs, of_hidden
        joined[:, -1] = sum(biases)
        input_gate, forget_gate, candidate, output_gate = np.split(joined, 4)
        # A sigmoid of x is 0.5 + 0.5 * tanh(0.5 * x), so that one call is enough for all.
        gates = 0.5 * np.concatenate([input_gate, forget_gate, output_gate])
        self._weight[...] = np.concatenate([gates, candidate])

    def run(self, inputs: np.ndarray) -> None:
        self._inputs[...] = inputs
        gates, sigmoids, half, cell, candidate = self._gates, self._sigmoids, self._half, self.cell, self._candidate
        self._weight.dot(self._joined, gates)
        np.tanh(gates, gates)
        np.multiply(sigmoids, half, sigmoids)
        np.add(sigmoids, half, sigmoids)
        np.multiply(cell, self._forget_gate, cell)
        np.multiply(candidate, self._input_gate, candidate)
        np.add(cell, candidate, cell)
        np.tanh(cell, candidate)
        np.multiply(self._output_gate, candidate, self.hidden)
