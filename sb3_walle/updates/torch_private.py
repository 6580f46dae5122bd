"""
Names of torch that are private or experimental, each in a function, as they are in torch 2.13.0.

Another release may change them without notice. Then this is the file to mend.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch as th
from torch.fx import GraphModule

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_post_accumulate_grad_hooks",
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
)


def has_own_hooks(part: Any) -> bool:
    """:return: whether there are hooks on a module, parameter or optimizer"""
    return any(getattr(part, name, None) for name in _HOOKS)


def has_hooks_on_all_modules() -> bool:
    """:return: whether there are hooks on all modules that exist, as debuggers and profilers set them"""
    return th.nn.modules.module._has_any_global_hook()


def held_tensors(module: th.nn.Module) -> list[dict[str, Any]]:
    """:return: the dictionaries in which a module has its own parameters and buffers"""
    return [module._parameters, module._buffers]


def distributions_are_checked() -> bool:
    """:return: whether distributions check their parameters by default"""
    return th.distributions.Distribution._validate_args


def is_operator(target: Any) -> bool:
    """:return: whether the target of a node of a graph is one of torch's operators"""
    return isinstance(target, th._ops.OpOverload)


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """
    :param function: what to do with each leaf
    :param tree: nested tuples, lists and dictionaries
    """
    from torch.utils._pytree import tree_map

    return tree_map(function, tree)


def trace(function: Callable[..., Any], inputs: Sequence[th.Tensor]) -> GraphModule:
    """
    :param function: takes tensors and returns a tuple of tensors
    :param inputs: an example, whose shapes count and whose values do not
    :return: the operators that it calls, autograd's included
    """
    # Takes a second to import, which short runs can do without.
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function, tracing_mode="fake")(*inputs)


def compile_ahead_of_time(graph: GraphModule, inputs: tuple[th.Tensor, ...], folder: Path, is_parallel: bool) -> Path:
    """
    :param graph: the graph
    :param inputs: an example of its inputs
    :param folder: where to put files
    :param is_parallel: whether the program asks for the number of threads when it runs, rather than now
    :return: a shared library
    """
    from torch._inductor import aot_compile

    options = {"cpp.dynamic_threads": is_parallel, "aot_inductor.output_path": str(folder)}
    found = aot_compile(graph, inputs, options=options)
    if not isinstance(found, str):
        raise TypeError(f"torch has made {found!r} rather than a shared library")
    return Path(found)


def load_program(path: Path) -> Callable[[list[th.Tensor]], list[th.Tensor]]:
    """
    :param path: a shared library
    :return: runs it
    """
    run: Callable[[list[th.Tensor]], list[th.Tensor]] = th._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    return run


def note_shapes(graph: GraphModule, inputs: Sequence[th.Tensor]) -> None:
    """
    :param graph: a graph; each of its nodes gets ``meta["val"]``, a tensor of the shape of its result
    :param inputs: an example of its inputs
    """
    from torch._subclasses import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    FakeTensorProp(graph, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*inputs)


def linear_by_onednn() -> Any:
    """
    An operator like torch's own of oneDNN, for which torch's compiler insists on weights that never change.

    :return: takes ``[rows, inner]``, ``[columns, inner]`` and ``[columns]`` or ``None``, and gives ``[rows, columns]``
    """
    from torch._inductor.lowering import register_lowering

    if not hasattr(th.ops.sb3_walle, "linear"):
        library = th.library.Library("sb3_walle", "DEF")
        _LIBRARIES.append(library)
        library.define("linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
        library.impl("linear", lambda values, weight, _: values.new_empty(values.shape[0], weight.shape[0]), "Meta")
        library.impl("linear", _onednn_product, "CPU")
        register_lowering(th.ops.sb3_walle.linear.default, type_promotion_kind=None)(_lowered)
    return th.ops.sb3_walle.linear.default


# torch forgets an operator when no object holds the library that has defined it.
_LIBRARIES: list[th.library.Library] = []


def _onednn_product(values: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    found: th.Tensor = th.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return found


def _lowered(values: Any, weight: Any, bias: Any) -> Any:
    """A call of oneDNN in terms of torch's compiler."""
    from torch._inductor import ir, mkldnn_ir

    kind = mkldnn_ir.LinearUnary
    values = kind.require_contiguous(kind.realize_input(values))
    # As it is, for the kernel takes any strides: torch's own LinearUnary.create() would copy a transposed matrix, which
    # takes a seventh of the product.
    weight = kind.realize_input(weight)
    layout = ir.FixedLayout(values.get_device(), values.get_dtype(), [values.get_size()[0], weight.get_size()[0]])
    # Nothing follows the product.
    plain: list[Any] = ["none", [-1], ""]
    if bias is None:
        product = kind(layout, [values, weight], [None, *plain])
    else:
        product = kind(layout, [values, weight, kind.require_contiguous(kind.realize_input(bias))], plain)
    return ir.TensorBox.create(mkldnn_ir._create_output_node(product))
