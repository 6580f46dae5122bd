"""A compiled program, ready to run."""

from pathlib import Path

import torch as th

from sb3_walle.updates.native.seal import is_whole
from sb3_walle.updates.torch_private import load_program
from sb3_walle.updates.unsupported import Unsupported


class NativeProgram:
    """
    Machine code for the CPU.

    :param path: the shared library
    :raises Unsupported: if it cannot be loaded
    """

    def __init__(self, path: Path) -> None:
        try:
            if not is_whole(path):
                raise Unsupported("the compiled update is not as it was written")
            self._run = load_program(path)
        except (AttributeError, OSError, RuntimeError) as error:
            raise Unsupported(f"the compiled update cannot be loaded: {error}") from error

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        """
        :param inputs: what the graph takes; changed in place where the graph does so
        :return: the first of what the graph returns
        """
        return self._run(inputs)[0]
