"""What a program is compiled from, and the name by which it is found again."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch as th
from torch.fx import GraphModule

from sb3_walle.updates.native import products
from sb3_walle.updates.native.graph_parts import GraphParts
from sb3_walle.updates.native.processor import described

# To be raised whenever this package compiles the same graph in another way.
VERSION = 4


class InputSpec(NamedTuple):
    """What is known of an input beforehand."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: th.dtype

    @classmethod
    def of(cls, tensor: th.Tensor) -> "InputSpec":
        """What is known of inputs like this tensor."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def empty(self) -> th.Tensor:
        """A tensor like this, with any values."""
        return th.empty_strided(self.shape, self.stride, dtype=self.dtype)


@dataclass(frozen=True)
class Blueprint:
    """
    A graph and all that decides how it is compiled.

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
        :param inputs: tensors of the shapes, strides and types of its calls
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
    processor = described("flags", "Features")
    return (th.__version__, str(th.version.git_version), platform.machine(), "".join(platform.libc_ver()), processor)
