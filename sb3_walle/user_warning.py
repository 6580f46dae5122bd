"""Warnings that point to the line of the user's own that they are about."""

import sys
import warnings
from types import FrameType

# What lies between the user's line and the one that warns: this package, what it calls, and what calls it.
_NOT_THE_USERS = ("sb3_walle", "stable_baselines3", "contextlib")


def warn_user(message: str) -> None:
    """
    Warn of something in the user's program, at the line that has called this package.

    :param message: what is the matter, and what to do
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_between(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_between(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS
