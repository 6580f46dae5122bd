"""Copies of policies that are evaluated and never trained."""

import copy
from typing import Any

from stable_baselines3.common.policies import BasePolicy


def copy_without_optimizer(policy: BasePolicy) -> Any:
    """
    :param policy: a policy
    :return: a copy
    """
    # Its distribution holds tensors of the last forward pass, which torch does not copy; they are not needed.
    distribution = getattr(policy, "action_dist", None)
    return copy.deepcopy(policy, {id(distribution): copy.copy(distribution), id(policy.optimizer): _NoOptimizer()})


class _NoOptimizer:
    """In the place of the optimizer, which takes no part in evaluating the policy."""
