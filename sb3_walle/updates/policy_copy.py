"""Copies of policies that are evaluated and never trained."""

import copy
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy


def optimizers_of(policy: BasePolicy) -> list[th.optim.Optimizer]:
    """The optimizers of a policy, which SB3 keeps with the networks that they update."""
    found = [vars(module).get("optimizer") for module in policy.modules()]
    return [optimizer for optimizer in found if isinstance(optimizer, th.optim.Optimizer)]


def copy_without_optimizer(policy: BasePolicy) -> Any:
    # Distributions hold tensors of the last forward pass, which torch does not copy; they are not needed.
    found = [vars(module).get("action_dist") for module in policy.modules()]
    memo: dict[int, Any] = {id(distribution): copy.copy(distribution) for distribution in found if distribution}
    memo |= {id(optimizer): _NoOptimizer() for optimizer in optimizers_of(policy)}
    return copy.deepcopy(policy, memo)


class _NoOptimizer:
    """In the place of an optimizer, which takes no part in evaluating the policy."""
