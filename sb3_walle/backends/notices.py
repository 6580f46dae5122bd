"""Telling the user what has happened to samplers."""

import sys
import warnings

from sb3_walle.samplers.errors import SamplerWarning

# Lines in these would tell a user nothing: what they call, learn() say, is what counts.
_NOT_THE_USERS = ("sb3_walle.", "stable_baselines3.", "sb3_contrib.")


def warn(message: str) -> None:
    """
    Warn of something, at the line of the user's program that the samplers were asked by.

    :param message: what has happened
    """
    warnings.warn(message, SamplerWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_NOT_THE_USERS):
        level, frame = level + 1, frame.f_back
    return level
