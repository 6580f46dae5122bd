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
