"""
Moving a graph to another process.

To unpickle a graph, torch runs it. Tensors that the graph makes, and perhaps changes in place, then become constants
that outlive the call.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch as th
from torch import fx

from sb3_walle.updates.torch_private import is_operator, map_arguments
from sb3_walle.updates.unsupported import Unsupported


@dataclass(frozen=True)
class _Result:
    """An argument that another node computes."""

    node: str


@dataclass(frozen=True)
class GraphParts:
    """
    A graph that can be pickled.

    :param nodes: operation, name, target, arguments and named arguments of each node, in order. An operator of torch
        as a target is its name, such as ``aten.add.Tensor``
    :param constants: constants by name
    """

    nodes: tuple[tuple[str, str, Any, Any, Any], ...]
    constants: dict[str, th.Tensor]

    @classmethod
    def of(cls, module: fx.GraphModule) -> "GraphParts":
        """:raises Unsupported: if it has parts that are no tensors, such as functions with control flow"""
        nodes, constants = [], {}
        for node in module.graph.nodes:
            if node.op == "get_attr":
                constants[node.target] = _constant(module, node.target)
            target = str(node.target) if is_operator(node.target) else node.target
            nodes.append((node.op, node.name, target, *(_without_nodes(some) for some in (node.args, node.kwargs))))
        return cls(tuple(nodes), constants)

    def build(self) -> fx.GraphModule:
        """The graph."""
        graph = fx.Graph()
        built: dict[str, fx.Node] = {}
        for operation, name, target, *arguments in self.nodes:
            if operation == "call_function" and isinstance(target, str):
                target = reduce(getattr, target.split("."), th.ops)
            args, kwargs = (
                map_arguments(lambda leaf: built[leaf.node] if isinstance(leaf, _Result) else leaf, some)
                for some in arguments
            )
            built[name] = graph.create_node(operation, target, args, kwargs, name)
        return fx.GraphModule(self.constants, graph)


def _without_nodes(arguments: Any) -> Any:
    return map_arguments(lambda leaf: _Result(leaf.name) if isinstance(leaf, fx.Node) else leaf, arguments)


def _constant(module: fx.GraphModule, name: str) -> th.Tensor:
    value = getattr(module, name)
    if not isinstance(value, th.Tensor):
        raise Unsupported(f"it has a part of type {type(value).__name__}")
    return value.detach()
