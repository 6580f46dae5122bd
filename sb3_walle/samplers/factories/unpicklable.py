"""Why a function that builds an environment cannot be sent to a sampler."""

import contextlib
import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from sb3_walle.samplers.factories.pickled_env import pickled

# Deeper than any name that helps.
_MAX_DEPTH = 8
# What cloudpickle leaves out of a class.
_NOT_PICKLED = ("__dict__", "__weakref__")


def unpicklable_error(function: Any, error: Exception) -> TypeError:
    """:return: the error to raise for a function, which names the variable that cannot be pickled"""
    place, culprit = _culprit(function, _name(function), _MAX_DEPTH)
    return TypeError(
        f"{_name(function)} builds an environment, but cannot be sent to a sampler: {place} is of type "
        f"{type(culprit).__name__!r}, which cannot be pickled ({type(error).__name__}: {error}). Make it inside of "
        f"the function, so that every sampler has its own, or in a module that the function imports."
    )


def _culprit(value: Any, place: str, depth: int) -> tuple[str, Any]:
    """The innermost part of a value that cannot be pickled, and where it is."""
    if depth:
        for name, part in _parts(value):
            if not _can_be_pickled(part):
                return _culprit(part, f"{name} of {place}", depth - 1)
    return place, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What is pickled with a value, and what to call it."""
    if isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            # One that was not assigned yet is empty.
            with contextlib.suppress(ValueError):
                yield f"the closure variable {name!r}", cell.cell_contents
        for name in _global_names(value.__code__):
            if name in value.__globals__:
                yield f"the global variable {name!r}", value.__globals__[name]
        for default in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            yield f"the default argument {default!r}", default
    elif isinstance(value, MethodType):
        yield "the object", value.__self__
        yield "the function", value.__func__
    elif isinstance(value, functools.partial):
        yield "the function", value.func
        for argument in (*value.args, *value.keywords.values()):
            yield f"the argument {argument!r}", argument
    elif isinstance(value, dict):
        yield from ((f"the item {key!r}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"the item {index}", item) for index, item in enumerate(value))
    else:
        attributes = {name: part for name, part in getattr(value, "__dict__", {}).items() if name not in _NOT_PICKLED}
        yield from ((f"the attribute {name!r}", attribute) for name, attribute in attributes.items())


def _global_names(code: CodeType) -> set[str]:
    """Names of the global variables that a function, or one inside of it, may use."""
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_global_names, inside))


def _can_be_pickled(value: Any) -> bool:
    try:
        pickled(value)
    except Exception:
        return False
    return True


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"the partial of {_name(function.func)}"
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
