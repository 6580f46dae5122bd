"""
Moving a graph to another process.

What torch itself does to unpickle a graph is to run it, and then tensors that it makes, and perhaps fills in place,
become constants that outlive the call.
"""

from dataclasses import dataclass
from typing import Any

import torch as th
from torch import fx

from sb3_walle.updates.torch_private import is_operator, map_tree
from sb3_walle.updates.unsupported import Unsupported


@dataclass(frozen=True)
class _Reference:
    """
    An argument that another node computes.

    :param name: name of the node
    """

    name: str


@dataclass(frozen=True)
class _Operator:
    """
    :param name: name of one of torch's operators, as ``aten.add.Tensor``
    """

    name: str

    def find(self) -> Any:
        """:return: the operator"""
        found = th.ops
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


@dataclass(frozen=True)
class GraphParts:
    """
    A graph that can be pickled.

    :param nodes: operation, name, target, arguments and named arguments of each node, in order
    :param constants: constants by name
    """

    nodes: tuple[tuple[str, str, Any, Any, Any], ...]
    constants: dict[str, th.Tensor]

    @classmethod
    def of(cls, module: fx.GraphModule) -> "GraphParts":
        """
        :param module: a graph of operators
        :return: its parts
        :raises Unsupported: if it has parts of another kind, such as functions with control flow
        """
        constants = {
            node.target: _constant(module, node.target) for node in module.graph.nodes if node.op == "get_attr"
        }
        nodes = tuple(
            (node.op, node.name, _target(node.target), _referring(node.args), _referring(node.kwargs))
            for node in module.graph.nodes
        )
        return cls(nodes, constants)

    def build(self) -> fx.GraphModule:
        """:return: the graph"""
        graph = fx.Graph()
        built: dict[str, fx.Node] = {}

        def resolved(tree: Any) -> Any:
            return map_tree(lambda leaf: built[leaf.name] if isinstance(leaf, _Reference) else leaf, tree)

        for operation, name, target, args, kwargs in self.nodes:
            found = target.find() if isinstance(target, _Operator) else target
            built[name] = graph.create_node(operation, found, resolved(args), resolved(kwargs), name)
        return fx.GraphModule(self.constants, graph)


def _target(target: Any) -> Any:
    return _Operator(str(target)) if is_operator(target) else target


def _referring(tree: Any) -> Any:
    # fx keeps lists and dictionaries in types of its own.
    if isinstance(tree, fx.Node):
        return _Reference(tree.name)
    if isinstance(tree, dict):
        return {key: _referring(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([*map(_referring, tree)]) if type(tree) is tuple else [*map(_referring, tree)]
    return tree


def _constant(module: fx.GraphModule, name: str) -> th.Tensor:
    value = getattr(module, name)
    if not isinstance(value, th.Tensor):
        raise Unsupported(f"it has a part of type {type(value).__name__}")
    return value.detach()
