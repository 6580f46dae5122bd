"""
Layers of a multilayer perceptron, in NumPy.

A network is compiled into a flat list of calls with all their arguments bound, so that nothing but NumPy's own loops
runs between two layers. Values are kept as ``[units, B]``, with environments in columns: that way a row of ones can
follow the units and still leave them contiguous, and with it the bias is one more column of the weights instead of a
call of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import erf, pi, sqrt
from typing import TypeAlias

import numpy as np

from sb3_walle.samplers.actors.numpy_inputs import Input, read_inputs
from sb3_walle.transport.chunk import Observations

#: One call of a compiled network.
Step: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Linear:
    """
    A ``torch.nn.Linear``.

    :param weight: its weight's name in the policy's ``state_dict()``
    :param bias: its bias's name; None if it has no bias
    """

    weight: str
    bias: str | None
    n_inputs: int
    n_outputs: int

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class LinearLayer:
    """
    The weights of linear layers with the same inputs, biases included. Their outputs follow each other.

    :param layers: the layers
    :param rows: where their outputs are, ``[n_outputs]``; None if there are no other rows
    :param n_rows: number of rows
    :param filler: the constant that the other rows have
    """

    def __init__(
        self, layers: tuple[Linear, ...], rows: np.ndarray | None = None, n_rows: int = 0, filler: float = 0.0
    ) -> None:
        n_outputs = sum(layer.n_outputs for layer in layers)
        self._layers: list[tuple[Linear, slice | np.ndarray]] = []
        for layer, end in zip(layers, np.cumsum([layer.n_outputs for layer in layers]), strict=True):
            # NumPy copies to a slice faster than to rows by their numbers.
            part = slice(end - layer.n_outputs, end)
            self._layers.append((layer, part if rows is None else rows[part]))
        # Input by output in memory: with few environments, BLAS is faster at it than at PyTorch's own layout.
        #: number of rows of the outputs
        self.n_rows = n_rows or n_outputs
        self._weight = np.zeros((layers[0].n_inputs + 1, self.n_rows), dtype=np.float32)
        self._weight[-1] = filler
        #: ``dot(inputs, outputs)``, with inputs ``[n_inputs + 1, B]`` and contiguous outputs ``[n_rows, B]``
        self.dot = self._weight.T.dot

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for layer, rows in self._layers:
            self._weight[:-1, rows] = weights[layer.weight].T
            self._weight[-1, rows] = 0.0 if layer.bias is None else weights[layer.bias]


@dataclass(frozen=True)
class Activation:
    """
    An activation function of ``torch.nn``.

    :param name: name of its class, a key of :data:`ACTIVATIONS`
    :param parameters: what the entry there takes beside the values, as pairs
    """

    name: str
    parameters: tuple[tuple[str, float | str], ...] = ()

    def compile(self, values: np.ndarray) -> list[Step]:
        """
        :param values: float32 values of any shape
        :return: steps that overwrite the values with the function's
        """
        return ACTIVATIONS[self.name](values, **dict(self.parameters))


class Network:
    """
    From observations to the inputs of the last, linear layer.

    :param inputs: what becomes of the observations, in the order in which the features are concatenated
    :param layers: the layers after the features
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, inputs: tuple[Input, ...], layers: tuple[Linear | Activation, ...], n_envs: int) -> None:
        self._linear_layers: list[LinearLayer] = []
        self._steps: list[Step] = []
        #: what the last layer gave, with a row of ones for the next layer's bias: ``[units + 1, B]``
        self.latent = np.ones((sum(item.size for item in inputs) + 1, n_envs), dtype=np.float32)
        self._read = read_inputs(inputs, self.latent[:-1])
        for layer in layers:
            if isinstance(layer, Linear):
                self._append(LinearLayer((layer,)), layer.n_outputs)
            else:
                self._steps += layer.compile(self.latent[:-1])

    def run(self, observations: Observations) -> None:
        """
        Compute ``latent``.

        :param observations: ``[B, ...]``, or a dictionary of such arrays
        """
        self._read(observations)
        for step in self._steps:
            step()

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for layer in self._linear_layers:
            layer.load_weights(weights)

    def _append(self, layer: LinearLayer, n_outputs: int) -> None:
        outputs = np.ones((n_outputs + 1, self.latent.shape[1]), dtype=np.float32)
        self._steps.append(partial(layer.dot, self.latent, outputs[:-1]))
        self._linear_layers.append(layer)
        self.latent = outputs


# Below, the activation functions. Constants are arrays of the values' shape where the function is a common one, because
# a ufunc spends longer on converting and broadcasting a number than on the values themselves.


def _identity(x: np.ndarray) -> list[Step]:
    return []


def _tanh(x: np.ndarray) -> list[Step]:
    return [partial(np.tanh, x, x)]


def _relu(x: np.ndarray) -> list[Step]:
    return [partial(np.maximum, x, np.zeros_like(x), out=x)]


def _scale(x: np.ndarray, factor: float) -> list[Step]:
    return [] if factor == 1.0 else [partial(np.multiply, x, np.full_like(x, factor), x)]


def _leaky_relu(x: np.ndarray, negative_slope: float) -> list[Step]:
    zero, negative = np.zeros_like(x), np.empty_like(x)
    return [
        partial(np.minimum, x, zero, out=negative),
        *_scale(negative, negative_slope),
        partial(np.maximum, x, zero, out=x),
        partial(np.add, x, negative, x),
    ]


def _elu(x: np.ndarray, alpha: float) -> list[Step]:
    zero, negative = np.zeros_like(x), np.empty_like(x)
    return [
        partial(np.minimum, x, zero, out=negative),
        partial(np.expm1, negative, negative),
        *_scale(negative, alpha),
        partial(np.maximum, x, zero, out=x),
        partial(np.add, x, negative, x),
    ]


def _one_plus_exp(x: np.ndarray) -> list[Step]:
    # Beyond this limit the exponential would soon overflow, and the reciprocal is no different from zero.
    limit = np.full_like(x, 80.0)
    return [
        partial(np.minimum, x, limit, out=x),
        partial(np.exp, x, x),
        partial(np.add, x, np.ones_like(x), x),
    ]


def _silu(x: np.ndarray) -> list[Step]:
    divisor = np.empty_like(x)
    return [partial(np.negative, x, divisor), *_one_plus_exp(divisor), partial(np.divide, x, divisor, x)]


def _gelu_tanh(x: np.ndarray) -> list[Step]:
    """``x / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3)))``, the tanh written as an exponential"""
    divisor, factor = np.empty_like(x), -2.0 * sqrt(2.0 / pi)
    return [
        partial(np.multiply, x, x, divisor),
        *_scale(divisor, 0.044715 * factor),
        partial(np.add, divisor, np.full_like(x, factor), divisor),
        partial(np.multiply, divisor, x, divisor),
        *_one_plus_exp(divisor),
        partial(np.divide, x, divisor, x),
    ]


@cache
def _cumulative_normal() -> tuple[np.ndarray, np.ndarray]:
    # NumPy has no error function. Between this many points a straight line is off by less than float32 can tell.
    points = np.linspace(-6.0, 6.0, 16_385)
    cumulative = np.array([0.5 * (1.0 + erf(point / sqrt(2.0))) for point in points])
    cumulative[0], cumulative[-1] = 0.0, 1.0
    return points, cumulative


def _gelu_erf(x: np.ndarray) -> list[Step]:
    """``x`` times the cumulative distribution of the standard normal"""
    points, cumulative = _cumulative_normal()

    def multiply() -> None:
        np.multiply(x, np.interp(x, points, cumulative), out=x)

    return [multiply]


def _gelu(x: np.ndarray, approximate: str) -> list[Step]:
    return _gelu_tanh(x) if approximate == "tanh" else _gelu_erf(x)


#: The supported activation functions, by the names of their classes. Each compiles into steps that overwrite the given
#: values, and takes those attributes of the class that change the result.
ACTIVATIONS: dict[str, Callable[..., list[Step]]] = {
    "ELU": _elu,
    "GELU": _gelu,
    "Identity": _identity,
    "LeakyReLU": _leaky_relu,
    "ReLU": _relu,
    "SiLU": _silu,
    "Tanh": _tanh,
}
