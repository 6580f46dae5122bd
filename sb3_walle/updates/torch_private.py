"""
Names of torch that are private or experimental, each in a function, as they are in torch 2.13.0.

Another release may change them without notice. Then this is the file to mend.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    return any(getattr(part, name, None) for name in _HOOKS)


def has_hooks_on_all_modules() -> bool:
    """Whether there are hooks on all modules that exist, as debuggers and profilers set them."""
    return th.nn.modules.module._has_any_global_hook()


def held_tensors(module: th.nn.Module) -> list[dict[str, Any]]:
    """The dictionaries in which a module has its own parameters and buffers."""
    return [module._parameters, module._buffers]


def distributions_are_checked() -> bool:
    return th.distributions.Distribution._validate_args


def is_operator(target: Any) -> bool:
    """Whether the target of a node of a graph is one of torch's operators."""
    return isinstance(target, th._ops.OpOverload)


def map_arguments(function: Callable[[Any], Any], arguments: Any) -> Any:
    """The arguments of a node of a graph, with a function of each leaf in its place."""
    from torch.fx.node import map_aggregate

    return map_aggregate(arguments, function)


def make_graph(function: Callable[..., Any], inputs: Sequence[th.Tensor]) -> GraphModule:
    """The operators that a function of tensors calls, autograd's included. Of the inputs, only shapes count."""
    # Takes a second to import, which short runs can do without.
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function, tracing_mode="fake")(*inputs)


def compile_ahead_of_time(graph: GraphModule, inputs: tuple[th.Tensor, ...], folder: Path, is_parallel: bool) -> Path:
    """
    Compile a graph to a shared library in a folder.

    :param is_parallel: whether the program asks for the number of threads when it runs, rather than now
    """
    from torch._inductor import aot_compile, config

    options = {"cpp.dynamic_threads": is_parallel, "aot_inductor.output_path": str(folder)}
    if hasattr(config.aot_inductor, "precompile_headers"):
        # That takes longer than it saves, unless it is kept for the next program. Not every release knows it.
        options["aot_inductor.precompile_headers"] = os.environ.get("TORCHINDUCTOR_CACHE_DIR") != str(folder)
    found = aot_compile(graph, inputs, options=options)
    if not isinstance(found, str):
        raise TypeError(f"torch has made {found!r} rather than a shared library")
    return Path(found)


def load_program(path: Path) -> Callable[[list[th.Tensor]], list[th.Tensor]]:
    """A function that runs a shared library."""
    run: Callable[[list[th.Tensor]], list[th.Tensor]] = th._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    return run


@contextmanager
def products_by_onednn(is_large: Callable[[int, int, int], bool]) -> Iterator[None]:
    """
    Have torch's compiler call oneDNN for matrix products in float32. By itself it does so for weights that never
    change.

    :param is_large: whether to do so for a product of ``[rows, inner]`` and ``[inner, columns]``
    """
    from torch._inductor import ir, lowering, mkldnn_ir

    kind = mkldnn_ir.LinearUnary

    def product(left: Any, right: Any, bias: Any) -> Any:
        left = kind.require_contiguous(kind.realize_input(left))
        # As it is, for the kernel takes any strides: torch's own LinearUnary.create() would copy a transposed matrix,
        # which takes a seventh of the product.
        weight = kind.realize_input(lowering.permute(right, [1, 0]))
        layout = ir.FixedLayout(left.get_device(), left.get_dtype(), [left.get_size()[0], weight.get_size()[0]])
        biases = [] if bias is None else [kind.require_contiguous(kind.realize_input(bias))]
        # Nothing follows the product.
        constants = [*([None] if bias is None else []), "none", [-1], ""]
        call = kind(layout, [left, weight, *biases], constants)
        return ir.TensorBox.create(mkldnn_ir._create_output_node(call))

    def replacing(default: Callable[..., Any]) -> Callable[..., Any]:
        def lowered(*args: Any, **kwargs: Any) -> Any:
            *biases, left, right = args
            (rows, inner), (_, columns) = left.get_size(), right.get_size()
            is_plain = not kwargs and all(len(bias.get_size()) == 1 for bias in biases)
            if is_plain and left.get_dtype() == th.float32 and is_large(int(rows), int(inner), int(columns)):
                return product(left, right, *biases or [None])
            return default(*args, **kwargs)

        return lowered

    lowerings: dict[Any, Any] = lowering.lowerings
    defaults = {operator: lowerings[operator] for operator in (th.ops.aten.mm.default, th.ops.aten.addmm.default)}
    lowerings.update({operator: replacing(default) for operator, default in defaults.items()})
    try:
        yield
    finally:
        lowerings.update(defaults)
