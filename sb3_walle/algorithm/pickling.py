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
        _forget_last_forward_pass(state["policy"])
    return state


def _forget_last_forward_pass(policy: BasePolicy) -> None:
    """
    Results of computations with gradients cannot be copied, and distributions remember some. gSDE's exploration
    matrices are such results, but have to be kept.
    """
    distributions = [part.action_dist for part in policy.modules() if getattr(part, "action_dist", None) is not None]
    for distribution in distributions:
        for name, value in vars(distribution).items():
            if isinstance(value, th.Tensor) and not value.is_leaf:
                setattr(distribution, name, value.detach())
            elif _is_of_a_forward_pass(value):
                setattr(distribution, name, None)


def _is_of_a_forward_pass(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, th.distributions.Distribution)
