"""Which modules a pickle refers to."""

import pickletools
import sys

from sb3_walle.samplers.factories.spec import MAIN_MODULES


def named_modules(payload: bytes) -> set[str]:
    """
    Modules that unpickling needs, as far as this process has them.

    Every string in the pickle that is the name of an imported module counts. That may be a few too many, never harmful:
    the answer only says what is worth importing before processes are forked.

    :param payload: a pickle
    :return: names of modules
    """
    strings = (argument for _, argument, _ in pickletools.genops(payload) if isinstance(argument, str))
    # Old-style references name the module and the attribute in one argument, separated by a space.
    words = {word for string in strings for word in (string, string.partition(" ")[0])}
    return {word for word in words if word in sys.modules and word not in MAIN_MODULES}
