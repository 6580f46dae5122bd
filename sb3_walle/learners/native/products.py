"""
Matrix products by oneDNN.

They are most of what an update computes. torch has two libraries for them, and by default asks MKL, which uses AVX-512
on Intel's processors only. oneDNN asks what a processor can do rather than who has made it, and on those of others is
twice as fast with large matrices.
"""

import platform
from typing import Any

import torch as th
from torch import fx

from sb3_walle.learners.native.processor import described

# Products of more multiplications are worth oneDNN's longer way to its code. Measured on one thread of an EPYC with
# AVX-512: [256, 64] by [64, 64] takes as long either way, [32, 256] by [256, 256] less by oneDNN, smaller ones more.
LARGE = 2**20
INTEL = "GenuineIntel"

_NAME = "sb3_walle"


def are_faster() -> bool:
    """:return: whether large products are faster by oneDNN than by what torch uses by itself, on this machine"""
    if not (th.backends.mkl.is_available() and th.backends.mkldnn.is_available()):
        return False
    return th.backends.cpu.get_cpu_capability() == "AVX512" and _vendor() not in (INTEL, None)


def _vendor() -> str | None:
    """Who has made the processor; ``None`` if that is not known."""
    if platform.machine() != "x86_64":
        return None
    return next((line.split(":")[1].strip() for line in described("vendor_id")), None)


def leave_to_onednn(module: fx.GraphModule, inputs: tuple[th.Tensor, ...]) -> int:
    """
    Have oneDNN make the large products of a graph that is going to be compiled.

    :param module: a graph of operators, which is changed
    :param inputs: an example of its inputs
    :return: how many products these are
    """
    from torch._subclasses import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    operator = _operator()
    FakeTensorProp(module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*inputs)
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


def _operator() -> Any:
    """
    An operator like torch's own of oneDNN, for which torch's compiler insists on weights that never change.

    :return: takes ``[rows, inner]``, ``[columns, inner]`` and ``[columns]`` or ``None``, and gives ``[rows, columns]``
    """
    from torch._inductor.lowering import register_lowering

    namespace = getattr(th.ops, _NAME)
    if not hasattr(namespace, "linear"):
        library = th.library.Library(_NAME, "DEF")
        _LIBRARIES.append(library)
        library.define("linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
        library.impl("linear", _shape_of_product, "Meta")
        library.impl("linear", _product, "CPU")
        register_lowering(namespace.linear.default, type_promotion_kind=None)(_lowered)
    return namespace.linear.default


# torch forgets an operator when nobody holds the library that has defined it.
_LIBRARIES: list[th.library.Library] = []


def _lowered(values: Any, weight: Any, bias: Any) -> Any:
    """A call of oneDNN in terms of torch's compiler."""
    from torch._inductor import ir, mkldnn_ir

    kind = mkldnn_ir.LinearUnary
    values = kind.require_contiguous(kind.realize_input(values))
    # As it is, for the kernel takes any strides: torch's own LinearUnary.create() would copy a transposed matrix, which
    # takes a seventh of the product.
    weight = kind.realize_input(weight)
    layout = ir.FixedLayout(values.get_device(), values.get_dtype(), [values.get_size()[0], weight.get_size()[0]])
    # What would be done to the product besides: nothing.
    plain: list[Any] = ["none", [-1], ""]
    if bias is None:
        product = kind(layout, [values, weight], [None, *plain])
    else:
        product = kind(layout, [values, weight, kind.require_contiguous(kind.realize_input(bias))], plain)
    return ir.TensorBox.create(mkldnn_ir._create_output_node(product))


def _shape_of_product(values: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    return values.new_empty(values.shape[0], weight.shape[0])


def _product(values: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    found: th.Tensor = th.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return found
