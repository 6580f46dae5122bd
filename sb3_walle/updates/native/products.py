"""
Matrix products by oneDNN.

They are most of what an update computes. torch has two libraries for them, and by default asks MKL, which uses AVX-512
on Intel's processors only. oneDNN uses it everywhere. AMD's processors since Zen 5 make twice as many operations with
it: one thread of a Zen 5 multiplied large matrices at 220 GFLOP/s by oneDNN and at 107 by MKL. On a Zen 4, whose
AVX-512 units are half as wide, the two are equal.
"""

from typing import Any

import torch as th
from torch import fx

from sb3_walle.updates.native.processor import described
from sb3_walle.updates.torch_private import linear_by_onednn, note_shapes

# Products of more multiplications are worth oneDNN's longer way to its code. Measured on one thread of an EPYC with
# AVX-512: [256, 64] by [64, 64] takes as long either way, [32, 256] by [256, 256] less by oneDNN, smaller ones more.
LARGE = 2**20
# Vendor and family of the processor, as Linux names them.
AMD, ZEN_5 = "AuthenticAMD", 26


def are_faster() -> bool:
    """:return: whether large products are faster by oneDNN than by what torch uses by itself, on this machine"""
    if not (th.backends.mkl.is_available() and th.backends.mkldnn.is_available()):
        return False
    if th.backends.cpu.get_cpu_capability() != "AVX512" or _what_it_says_of("vendor_id") != AMD:
        return False
    family = _what_it_says_of("cpu family")
    return family.isdecimal() and int(family) >= ZEN_5


def _what_it_says_of(field: str) -> str:
    return next((line.split(":")[1].strip() for line in described(field)), "")


def leave_to_onednn(module: fx.GraphModule, inputs: tuple[th.Tensor, ...]) -> int:
    """
    Have oneDNN make the large products of a graph that is going to be compiled.

    :param module: a graph of operators, which is changed
    :param inputs: an example of its inputs
    :return: how many products these are
    """
    operator = linear_by_onednn()
    note_shapes(module, inputs)
    n_products = 0
    for node in list(module.graph.nodes):
        if _is_large_product(node):
            _replace(module.graph, node, operator)
            n_products += 1
    module.recompile()
    return n_products


def _is_large_product(node: fx.Node) -> bool:
    if node.target not in (th.ops.aten.mm.default, th.ops.aten.addmm.default) or node.kwargs:
        return False
    bias, left, right = _operands(node)
    if bias is not None and bias.meta["val"].dim() != 1:
        return False
    rows, inner = left.meta["val"].shape
    columns = right.meta["val"].shape[1]
    return left.meta["val"].dtype == th.float32 and rows * inner * columns > LARGE


def _operands(node: fx.Node) -> tuple[Any, Any, Any]:
    """What is added, if anything, and the two matrices."""
    return (None, *node.args) if len(node.args) == 2 else node.args  # type: ignore[return-value]


def _replace(graph: fx.Graph, node: fx.Node, operator: Any) -> None:
    bias, left, right = _operands(node)
    with graph.inserting_before(node):
        transposed = graph.call_function(th.ops.aten.t.default, (right,))
        product = graph.call_function(operator, (left, transposed, bias))
    node.replace_all_uses_with(product)
    graph.erase_node(node)
