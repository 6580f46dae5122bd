"""Which modules a pickle refers to."""

import pickletools
import sys
from typing import Any

from sb3_walle.samplers.factories.spec import MAIN_MODULES

# After these, a function or class that is pickled by value names the module that it comes from.
_OWN_MODULE = ("__module__", "__name__", "__package__")


def named_modules(payload: bytes) -> set[str]:
    """
    Modules that unpickling needs, as far as this process has them.

    Every string in the pickle that is the name of an imported module counts. That may be a few too many: the answer
    only says what is worth importing before processes are forked. But what is pickled by value does not need the module
    that it comes from, which is the user's own and may take seconds to import torch.

    :param payload: a pickle
    :return: names of modules
    """
    words: set[str] = set()
    kept: dict[int, str | None] = {}
    before = value = None
    argument: Any
    for opcode, argument, _ in pickletools.genops(payload):
        if opcode.name == "MEMOIZE":
            kept[len(kept)] = value
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            kept[argument] = value
        elif opcode.name != "FRAME":
            before = value
            if opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                value = kept[argument]
            else:
                value = argument if isinstance(argument, str) else None
            if value is not None and before not in _OWN_MODULE:
                # Old-style references name the module and the attribute in one argument, separated by a space.
                words |= {value, value.partition(" ")[0]}
    return {word for word in words if word in sys.modules and word not in MAIN_MODULES}
