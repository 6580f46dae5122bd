"""From a function of tensors to a graph of operators."""

from collections.abc import Callable, Sequence
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch.fx import GraphModule

from sb3_walle.updates import torch_private
from sb3_walle.updates.global_state import unchecked_distributions
from sb3_walle.updates.policy_copy import copy_without_optimizer, optimizers_of
from sb3_walle.updates.unsupported import Unsupported, in_short


def trace(step: Callable[..., Any], inputs: Sequence[th.Tensor]) -> GraphModule:
    """
    Trace a function at the level of operators, autograd included.

    The tensors that flow through it have shapes and no values, so that a decision by a value is an error.

    :param step: takes tensors and returns a tuple of tensors; may change inputs in place
    :param inputs: tensors of the shapes, strides, types and devices of its calls
    :raises Unsupported: if it cannot be traced, or draws random numbers
    """
    try:
        with unchecked_distributions():
            graph = torch_private.make_graph(step, inputs)
    except Exception as error:
        # A policy may do anything. All that torch cannot trace looks different.
        raise Unsupported(f"the policy cannot be traced: {in_short(error)}") from error
    random = sorted({str(node.target) for node in graph.graph.nodes if _is_random(node.target)})
    if random:
        raise Unsupported(f"the policy draws random numbers ({', '.join(random)})")
    return graph


def copied_policy(policy: BasePolicy) -> Any:
    """
    A copy to trace, without its optimizer: tracing leaves tensors without values wherever a policy keeps some.

    :raises Unsupported: if the policy cannot be copied, or has hooks, which tracing would not respect
    """
    if has_hooks(policy):
        raise Unsupported("there are hooks on modules or parameters of the policy, or on its optimizer")
    try:
        return copy_without_optimizer(policy)
    except Exception as error:
        raise Unsupported(f"the policy cannot be copied: {in_short(error)}") from error


def has_hooks(policy: BasePolicy) -> bool:
    """Whether there are hooks on a part of a policy, or on its optimizers."""
    parts = [*policy.modules(), *policy.parameters(), *optimizers_of(policy)]
    return any(map(torch_private.has_own_hooks, parts)) or torch_private.has_hooks_on_all_modules()


def _is_random(target: Any) -> bool:
    return torch_private.is_operator(target) and th.Tag.nondeterministic_seeded in target.tags
