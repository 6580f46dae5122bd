"""Telling the user what has happened to samplers."""

from sb3_walle.samplers.errors import SamplerWarning
from sb3_walle.user_warning import warn_user


def warn(message: str) -> None:
    """
    Warn of something, at the line of the user's program that the samplers were asked by, each time that it happens.

    :param message: what has happened
    """
    warn_user(message, SamplerWarning, every_time=True)
