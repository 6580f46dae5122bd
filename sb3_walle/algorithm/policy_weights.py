"""A policy's weights as arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy


def policy_weights(policy: BasePolicy, names: Iterable[str]) -> dict[str, np.ndarray]:
    """:return: entries of ``state_dict()`` as arrays, which share the policy's memory where it is on the CPU"""
    wanted = list(names)
    state = _state(policy, {name.partition(".")[0] for name in wanted})
    return {name: state[name].detach().cpu().numpy() for name in wanted}


def _state(policy: BasePolicy, parts: set[str]) -> Mapping[str, Any]:
    """The policy's state, or that of some of its parts: to collect all of it, critics included, may take longer."""
    modules = dict(policy.named_children())
    if not parts <= modules.keys() or type(policy).state_dict is not th.nn.Module.state_dict:
        return policy.state_dict()
    return {f"{part}.{name}": value for part in sorted(parts) for name, value in modules[part].state_dict().items()}
