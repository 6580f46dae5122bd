"""What the operating system says of the processor."""

import platform
from pathlib import Path


def described(*fields: str) -> list[str]:
    """
    :param fields: how lines of ``/proc/cpuinfo`` begin
    :return: the first line that begins with one of them, for each of the fields that there are
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    found = (next((line for line in lines if line.startswith(field)), None) for field in fields)
    return [line for line in found if line is not None]
