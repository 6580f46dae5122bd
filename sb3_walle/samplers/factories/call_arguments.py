"""What functions that build environments are called with."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

SEED = "seed"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CallArguments(NamedTuple):
    """
    :param takes_number: whether a function is asked for that many environments at once, in a vectorised one
    :param takes_seed: whether such a function gets a seed, too
    """

    takes_number: bool
    takes_seed: bool


def call_arguments(factory: Callable[..., Any]) -> CallArguments:
    """
    A function with one required positional parameter takes the number of environments. Such a function may have a
    parameter named ``seed``, too.
    """
    known = getattr(factory, "call_arguments", None)
    if isinstance(known, CallArguments):
        return known
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        # Some classes of C tell nothing of their parameters.
        return CallArguments(False, False)
    required = [
        parameter
        for parameter in parameters
        if parameter.kind in _POSITIONAL and parameter.default is parameter.empty and parameter.name != SEED
    ]
    takes_number = len(required) == 1
    return CallArguments(takes_number, takes_number and any(parameter.name == SEED for parameter in parameters))
