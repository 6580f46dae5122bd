"""The settings of a policy, which are not weights, as far as a change of them can be seen."""

from typing import TypeAlias

from stable_baselines3.common.policies import BasePolicy
from torch import nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Whether it trains, and hooks, which are looked after elsewhere.
_EVERY_MODULES_OWN = frozenset(vars(nn.Module()))

PolicySettings: TypeAlias = tuple[tuple[str, str, tuple[tuple[str, object], ...]], ...]


def policy_settings(policy: BasePolicy) -> PolicySettings:
    """
    :return: for each of its modules, itself included: name, class, and those attributes that are numbers, strings,
        truth values or ``None``
    """
    return tuple(
        (name, type(module).__qualname__, _plain_attributes(module)) for name, module in policy.named_modules()
    )


def _plain_attributes(module: nn.Module) -> tuple[tuple[str, object], ...]:
    return tuple(
        (name, value)
        for name, value in vars(module).items()
        if name not in _EVERY_MODULES_OWN and isinstance(value, PLAIN)
    )
