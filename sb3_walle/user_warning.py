"""Warnings that point to the line of the user's own that they are about."""

import sys
import warnings
from types import FrameType

# What lies between the user's line and the one that warns: this package, what it calls, and what calls it.
_NOT_THE_USERS = ("sb3_walle", "stable_baselines3", "sb3_contrib", "contextlib")


def warn_user(message: str, category: type[Warning] = UserWarning, every_time: bool = False) -> None:
    """
    Warn of something in the user's program, at the line that has called this package.

    :param message: what is the matter, and what to do
    :param category: class of the warning
    :param every_time: whether to show what happens again in the same words, hours later say; filters may still hide it
    """
    frame = _frame_of_user()
    registry = {} if every_time else frame.f_globals.setdefault("__warningregistry__", {})
    module = frame.f_globals.get("__name__")
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _frame_of_user() -> FrameType:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        frame = frame.f_back
    return frame
