"""
Layers of a multilayer perceptron, in NumPy.

A network is compiled into a flat list of calls with all their arguments bound, so that nothing but NumPy's own loops
runs between two layers. Values are kept as ``[units, B]``, with environments in columns: that way a row of ones can
follow the units and still leave them contiguous, and with it the bias is one more column of the weights instead of a
call of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import erf, pi, sqrt
from typing import TypeAlias

import numpy as np

#: One call of a compiled network.
Step: TypeAlias = Callable[[], object]


def with_row_of_ones(n_units: int, n_envs: int) -> np.ndarray:
    """
    :param n_units: units of a layer
    :param n_envs: environments, B
    :return: room for the layer's values, and the ones that the next layer's bias is multiplied by, ``[n_units + 1, B]``
    """
    return np.ones((n_units + 1, n_envs), dtype=np.float32)


@dataclass(frozen=True)
class Linear:
    """
    A ``torch.nn.Linear``.

    :param weight: its weight's name in the policy's ``state_dict()``
    :param bias: its bias's name; None if it has no bias
    :param n_inputs: number of inputs
    :param n_outputs: number of outputs
    """

    weight: str
    bias: str | None
    n_inputs: int
    n_outputs: int

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Which entries of the policy's ``state_dict()`` it needs."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class LinearLayer:
    """
    A linear layer's weights, bias included.

    :param linear: the layer
    :param rows: which outputs are the layer's, ``[linear.n_outputs]``; None if there are no others
    :param n_rows: number of outputs, with those that are not the layer's
    :param filler: the constant that the other outputs give
    """

    def __init__(self, linear: Linear, rows: np.ndarray | None = None, n_rows: int = 0, filler: float = 0.0) -> None:
        self._linear = linear
        self._rows = np.arange(linear.n_outputs) if rows is None else rows
        # Input by output in memory: with few environments, BLAS is faster at it than at PyTorch's own layout.
        self._weight = np.zeros((linear.n_inputs + 1, n_rows or linear.n_outputs), dtype=np.float32)
        self._weight[-1] = filler
        #: ``dot(inputs, outputs)``, with inputs ``[n_inputs + 1, B]`` and contiguous outputs ``[n_rows, B]``
        self.dot = self._weight.T.dot

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """
        :param weights: by their names in the policy's ``state_dict()``
        """
        self._load(self._linear, self._rows, weights)

    def _load(self, linear: Linear, rows: np.ndarray, weights: Mapping[str, np.ndarray]) -> None:
        self._weight[:-1, rows] = weights[linear.weight].T
        self._weight[-1, rows] = 0.0 if linear.bias is None else weights[linear.bias]


@dataclass(frozen=True)
class Activation:
    """
    An activation function of ``torch.nn``.

    :param name: name of its class
    :param parameters: the keyword arguments of its class, as pairs
    """

    name: str
    parameters: tuple[tuple[str, float | str], ...] = ()

    def compile(self, values: np.ndarray) -> list[Step]:
        """
        :param values: float32 values of any shape, which the steps overwrite with the function's
        :return: the steps
        """
        return ACTIVATIONS[self.name](values, **dict(self.parameters))


class Network:
    """
    The layers between features and the last, linear layer.

    :param layers: the layers
    :param features: where the features are, ``[features + 1, B]``, the last row being ones
    """

    def __init__(self, layers: tuple[Linear | Activation, ...], features: np.ndarray) -> None:
        self._linear_layers: list[LinearLayer] = []
        self._steps: list[Step] = []
        #: what the last layer gave, with a row of ones: ``[units + 1, B]``
        self.latent = features
        for layer in layers:
            if isinstance(layer, Linear):
                self._append(LinearLayer(layer), layer.n_outputs)
            else:
                self._steps += layer.compile(self.latent[:-1])

    def run(self) -> None:
        """Compute ``latent`` from the features."""
        for step in self._steps:
            step()

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """
        :param weights: by their names in the policy's ``state_dict()``
        """
        for layer in self._linear_layers:
            layer.load_weights(weights)

    def _append(self, layer: LinearLayer, n_outputs: int) -> None:
        outputs = with_row_of_ones(n_outputs, self.latent.shape[1])
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


def _gelu_erf(x: np.ndarray) -> list[Step]:
    """``x`` times the cumulative distribution of the standard normal"""
    # NumPy has no error function. Between this many points a straight line is off by less than float32 can tell.
    points = np.linspace(-6.0, 6.0, 16_385)
    cumulative = np.array([0.5 * (1.0 + erf(point / sqrt(2.0))) for point in points])
    cumulative[0], cumulative[-1] = 0.0, 1.0

    def multiply() -> None:
        np.multiply(x, np.interp(x, points, cumulative), out=x)

    return [multiply]


def _gelu(x: np.ndarray, approximate: str) -> list[Step]:
    return _gelu_tanh(x) if approximate == "tanh" else _gelu_erf(x)


#: The supported activation functions, by the names of their classes in ``torch.nn``. Each compiles into steps that
#: overwrite the given values, and takes the keyword arguments of its class as far as they change the result.
ACTIVATIONS: dict[str, Callable[..., list[Step]]] = {
    "ELU": _elu,
    "GELU": _gelu,
    "Identity": _identity,
    "LeakyReLU": _leaky_relu,
    "ReLU": _relu,
    "SiLU": _silu,
    "Tanh": _tanh,
}
