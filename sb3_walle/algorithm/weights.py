"""A policy's weights as arrays."""

from collections.abc import Iterable

import numpy as np
from stable_baselines3.common.policies import BasePolicy


def policy_weights(policy: BasePolicy, names: Iterable[str]) -> dict[str, np.ndarray]:
    """
    :param policy: a policy, on any device
    :param names: entries of its ``state_dict()``
    :return: these entries as arrays, which share the policy's memory where it is on the CPU
    """
    state = policy.state_dict()
    return {name: state[name].detach().cpu().numpy() for name in names}
