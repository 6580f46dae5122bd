"""Blocks of memory that the queues lie in."""

from typing import Protocol

import numpy as np

from sb3_walle.transport.layout import ALIGNMENT


class Memory(Protocol):
    """A block of memory, zeroed when it is new."""

    nbytes: int
    view: memoryview


class PrivateMemory:
    """
    A block that only this process can reach.

    :param nbytes: size in bytes
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        block = np.zeros(nbytes + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        self.view = block[start : start + nbytes].data
