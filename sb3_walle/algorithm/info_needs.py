"""Which infos callbacks and the algorithm itself need."""

import inspect
from functools import cache

from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from sb3_walle.callbacks import AdaptiveTrustRegion, AsyncEvalCallback, SafeCheckpointCallback
from sb3_walle.timeline.callback import TimelineCallback

# None of SB3's own callbacks looks at an info that does not end an episode, nor do those of this package.
_STOCK = {value for value in vars(callbacks).values() if isinstance(value, type) and issubclass(value, BaseCallback)}
_STOCK |= {AdaptiveTrustRegion, AsyncEvalCallback, SafeCheckpointCallback, TimelineCallback}
# Those of sb3-contrib do neither. It may not be installed.
_STOCK_OF_CONTRIB = "sb3_contrib.common.maskable.callbacks"


def wants_all_infos(callback: BaseCallback) -> bool:
    """:return: whether a callback, or one that it calls, may look at the infos of any step"""
    if not _is_stock(type(callback)):
        return True
    if isinstance(callback, ConvertCallback):
        # LogEveryNTimesteps calls a method of its own in this way.
        owner = getattr(callback.callback, "__self__", None)
        return callback.callback is not None and not _is_stock(type(owner))
    return any(wants_all_infos(inner) for inner in called_by(callback))


def _is_stock(kind: type) -> bool:
    return kind in _STOCK or kind.__module__ == _STOCK_OF_CONTRIB


# Their methods look at infos that end an episode only, and hand all of them on.
_KNOWN_PACKAGES = ("stable_baselines3", "sb3_contrib", "sb3_walle")


def may_look_at_infos(algorithm: BaseAlgorithm, method: str | None = None) -> bool:
    """
    :param method: one of its methods that are given infos, by default any of them
    :return: whether it was overridden, in a subclass or on the object, so that it may look at any info
    """
    methods = _given_infos(type(algorithm)) if method is None else (method,)
    return any(name in vars(algorithm) or _is_overridden(type(algorithm), name) for name in methods)


@cache
def _given_infos(algorithm: type[BaseAlgorithm]) -> tuple[str, ...]:
    """Methods of SB3's own that an algorithm can override and that are given the infos of a step."""
    owners = [owner for owner in algorithm.__mro__ if _is_known(owner)]
    found = {
        name: None
        for owner in owners
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and "infos" in inspect.signature(value).parameters
    }
    return tuple(found)


@cache
def _is_overridden(algorithm: type[BaseAlgorithm], method: str) -> bool:
    owner = next((owner for owner in algorithm.__mro__ if method in vars(owner)), None)
    return owner is not None and not _is_known(owner)


def _is_known(owner: type) -> bool:
    return owner.__module__.split(".")[0] in _KNOWN_PACKAGES


def called_by(callback: BaseCallback) -> list[BaseCallback]:
    """:return: the callbacks that a stock callback calls, under any attribute"""
    if isinstance(callback, CallbackList):
        return callback.callbacks
    return [value for name, value in vars(callback).items() if isinstance(value, BaseCallback) and name != "parent"]
