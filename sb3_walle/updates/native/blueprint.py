"""What a program is compiled from, and the name by which it is found again."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch as th
from torch.fx import GraphModule

from sb3_walle.updates.native import products
from sb3_walle.updates.native.graph_parts import GraphParts
from sb3_walle.updates.native.processor import described

# To be raised whenever this package compiles the same graph in another way.
VERSION = 3


@dataclass(frozen=True)
class InputSpec:
    """
    What is known of an input beforehand.

    :param shape: its shape
    :param stride: its strides
    :param dtype: its data type's name
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: th.Tensor) -> "InputSpec":
        """
        :param tensor: a tensor
        :return: what is known of it
        """
        return cls(tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype).removeprefix("torch."))

    def empty(self) -> th.Tensor:
        """:return: a tensor like this, with any values"""
        return th.empty_strided(self.shape, self.stride, dtype=getattr(th, self.dtype))


@dataclass(frozen=True)
class Blueprint:
    """
    A graph and all that decides how it is compiled.

    :param graph: the graph
    :param inputs: its inputs
    :param is_parallel: whether the program uses as many threads as torch does, rather than one
    :param uses_onednn: whether oneDNN makes its large matrix products, rather than what torch uses by itself
    """

    graph: GraphParts
    inputs: tuple[InputSpec, ...]
    is_parallel: bool
    uses_onednn: bool = False

    @classmethod
    def of(cls, graph: GraphModule, inputs: Sequence[th.Tensor], is_parallel: bool) -> "Blueprint":
        """
        :param graph: the graph, on the CPU
        :param inputs: tensors as it is going to be called with
        :param is_parallel: whether to use as many threads as torch does
        :return: its blueprint
        :raises Unsupported: if the graph cannot be moved to the process that compiles
        """
        specs = tuple(InputSpec.of(tensor) for tensor in inputs)
        return cls(GraphParts.of(graph), specs, is_parallel, products.are_faster())

    @cached_property
    def key(self) -> str:
        """A name that no other program has: that of the graph, of this machine's kind, and of this torch."""
        constants = {name: (InputSpec.of(tensor), _content(tensor)) for name, tensor in self.graph.constants.items()}
        parts = (VERSION, self.graph.nodes, constants, self.inputs, self.is_parallel, self.uses_onednn, _surroundings())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _content(tensor: th.Tensor) -> bytes:
    # As bytes, because NumPy does not know all of torch's types.
    return tensor.reshape(-1).view(th.uint8).numpy().tobytes()


def _surroundings() -> tuple[str, ...]:
    # torch compiles for the very processor that it runs on; a home directory may be shared by several.
    processor = "".join(described("flags", "Features"))
    return (th.__version__, str(th.version.git_version), platform.machine(), "".join(platform.libc_ver()), processor)
