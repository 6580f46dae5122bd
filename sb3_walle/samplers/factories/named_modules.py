"""Which modules a pickle refers to."""

import pickletools
import sys
from collections.abc import Iterator
from typing import Any

from sb3_walle.samplers.factories.spec import MAIN_MODULES

_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
# By this function, cloudpickle pickles modules.
_IMPORT = ("cloudpickle.cloudpickle", "subimport")


def named_modules(payload: bytes) -> set[str]:
    """
    Modules that unpickling imports, as far as this process has them.

    A function that is pickled by value names the module that it comes from, too, but does not need it. Importing that
    one might take seconds: the user's own module imports torch.

    :param payload: a pickle
    :return: names of modules
    """
    return {name for name in _imported(payload) if name in sys.modules and name not in MAIN_MODULES}


def _imported(payload: bytes) -> Iterator[str]:
    # The latest two strings or references on the stack, and those that are kept for later by number.
    below: object = None
    top: object = None
    kept: dict[int, object] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(payload):
        name = opcode.name
        if name == "MEMOIZE":
            kept[len(kept)] = top
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            kept[argument] = top
        elif name in _STRINGS:
            if top == _IMPORT:
                yield argument
            below, top = top, argument
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            if top == _IMPORT and isinstance(kept[argument], str):
                yield str(kept[argument])
            below, top = top, kept[argument]
        elif name == "STACK_GLOBAL":
            yield str(below)
            below, top = None, (below, top)
        elif name == "GLOBAL":
            yield argument.partition(" ")[0]
            below, top = None, tuple(argument.split(" ", 1))
        elif name != "FRAME":
            below, top = top, None
