"""What of a model travels when it is pickled or copied."""

from copy import copy
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.sb3_private import HAS_CUSTOM_LOGGER, LAST_STEP, LOGGER, VEC_NORMALIZE

# The environments and what belongs to them: processes, sockets, shared memory, and where their episodes are. And what
# is compiled for this very policy.
_LEFT_BEHIND = ("env", VEC_NORMALIZE, *LAST_STEP, "_updater", "_recorded")


def state_without_samplers(algorithm: BaseAlgorithm) -> dict[str, Any]:
    """:return: its attributes as a copy of it should have them, which belongs to no environment and no logger"""
    state = {**vars(algorithm), **dict.fromkeys(_LEFT_BEHIND), "_is_learning": False, HAS_CUSTOM_LOGGER: False}
    # The same random streams ahead, and a collector of its own.
    state["_experience"] = copy(state["_experience"])
    # Open files. SB3 configures another one when training begins.
    state.pop(LOGGER, None)
    if "policy" in state:
        _forget_graphs_of_parts(state["policy"])
        state["policy"] = _without_graph(state["policy"])
    return state


def _without_graph(policy: BasePolicy) -> BasePolicy:
    """
    The same policy, without what its distribution remembers of the last forward pass: results of computations with
    gradients cannot be copied. gSDE's exploration matrices are such results, but have to be kept.
    """
    distribution = getattr(policy, "action_dist", None)
    if distribution is None:
        return policy
    twin = copy(policy)
    twin.action_dist = copy(distribution)
    twin.action_dist.__dict__ = {
        name: value.detach() if isinstance(value, th.Tensor) and not value.is_leaf else value
        for name, value in vars(distribution).items()
        if not _is_of_a_forward_pass(value)
    }
    return twin


def _forget_graphs_of_parts(policy: BasePolicy) -> None:
    """
    The same for parts of the policy, as the actor of SAC. The algorithm refers to them, too, so they cannot be replaced
    by twins; nothing of a forward pass before is looked at again.
    """
    for part in policy.modules():
        distribution = getattr(part, "action_dist", None)
        if part is policy or distribution is None:
            continue
        for name, value in vars(distribution).items():
            if isinstance(value, th.Tensor) and not value.is_leaf:
                setattr(distribution, name, value.detach())
            elif _is_of_a_forward_pass(value):
                setattr(distribution, name, None)


def _is_of_a_forward_pass(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, th.distributions.Distribution)
