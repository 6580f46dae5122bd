"""A compiled program: a shared library with a checksum at its end, ready to run."""

import hashlib
from pathlib import Path

import torch as th

from sb3_walle.updates.torch_private import load_program
from sb3_walle.updates.unsupported import Unsupported

_NBYTES = hashlib.sha256().digest_size


class NativeProgram:
    """
    Machine code for the CPU.

    :param path: the shared library
    :raises Unsupported: if it cannot be loaded
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not is_whole(path):
                raise Unsupported("the compiled update is not as it was written")
            self._run = load_program(path)
        except (AttributeError, OSError, RuntimeError) as error:
            raise Unsupported(f"the compiled update cannot be loaded: {error}") from error

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        """The first of what the graph returns. Inputs are changed in place where the graph does so."""
        return self._run(inputs)[0]


def with_checksum(library: bytes) -> bytes:
    """The content of a file for a shared library, which ends where its own headers say."""
    return library + hashlib.sha256(library).digest()


def is_whole(path: Path) -> bool:
    """Whether a file is as it was written. Loading a library that was cut off would end the process."""
    data = path.read_bytes()
    return with_checksum(data[:-_NBYTES]) == data
