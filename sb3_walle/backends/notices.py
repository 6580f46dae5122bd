"""Telling the user what has happened to samplers."""

import sys
import warnings
from types import FrameType

from sb3_walle.samplers.errors import SamplerWarning

# Lines in these would tell a user nothing: what they call, learn() say, is what counts.
_NOT_THE_USERS = ("sb3_walle.", "stable_baselines3.", "sb3_contrib.")


def warn(message: str) -> None:
    """
    Warn of something, at the line of the user's program that the samplers were asked by.

    :param message: what has happened
    """
    frame = _frame_of_user()
    module = frame.f_globals.get("__name__")
    # By warnings.warn(), what happens again in the same words, hours later say, would not be shown again.
    warnings.warn_explicit(message, SamplerWarning, frame.f_code.co_filename, frame.f_lineno, module)


def _frame_of_user() -> FrameType:
    frame = sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame
