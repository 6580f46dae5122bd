"""What a crashing interpreter writes down of where it was, for the user to read."""

from itertools import takewhile
from pathlib import Path

from sb3_walle.samplers import requests

HEADING = "Most recent call first:"
FRAME = "  File "
# From here on outwards, every sampler is in the same place.
_OUTERMOST = f'{FRAME}"{Path(requests.__file__)}"'


def readable(dump: str) -> str:
    """
    :param dump: what ``faulthandler`` wrote, or anything else
    :return: the lines of it that tell where the environment was; anything else as it is
    """
    frames = [line for line in dump.splitlines() if line.startswith(FRAME)]
    inner = list(takewhile(lambda line: not line.startswith(_OUTERMOST), frames))
    if not dump.startswith("Fatal Python error") or not inner:
        return dump
    return "\n".join([HEADING, *inner])
