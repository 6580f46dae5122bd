"""
What was changed in an environment after its constructor, where pickling keeps the constructor's arguments only.

Gymnasium's ``EzPickle`` environments (MuJoCo, Box2D, Atari) wrap native objects that cannot be pickled. Their copy is
built by the constructor, and then gets every attribute in which the original differs from a newly built one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from typing import Any

import cloudpickle
import numpy as np
from gymnasium.utils import EzPickle

from sb3_walle.samplers.factories.streams_of_copies import is_stream
from sb3_walle.samplers.quiet import quiet
from sb3_walle.samplers.refusals import EditedEnvError

# The parts of a MuJoCo model. Its data is the state of an episode, everything else belongs to rendering.
_MUJOCO = "mujoco._structs"
_MUJOCO_MODEL = ("MjModel", "MjOption", "MjStatistic", "MjVisual")


class _Missing(Enum):
    """Stands for an attribute that is not there."""

    MISSING = 0


@dataclass(frozen=True)
class Edit:
    """
    An attribute that was changed.

    :param path: names of the attributes that lead to it, ``("model", "opt", "gravity")``
    :param value: its value
    """

    path: tuple[str, ...]
    value: Any

    def apply(self, env: Any) -> None:
        """Change a newly built environment."""
        *way, name = self.path
        for step in way:
            env = getattr(env, step)
        if _is_of_model(env):
            if isinstance(self.value, np.ndarray):
                # Views of the model's own memory, which data and renderers refer to.
                getattr(env, name)[...] = self.value
            else:
                setattr(env, name, self.value)
        elif self.value is _Missing.MISSING:
            vars(env).pop(name, None)
        else:
            vars(env)[name] = self.value


def keeps_arguments_only(env: Any) -> bool:
    """:return: whether pickling keeps nothing of an object but the arguments of its constructor"""
    cls = type(env)
    return (
        isinstance(env, EzPickle)
        and cls.__getstate__ is EzPickle.__getstate__
        and cls.__setstate__ is EzPickle.__setstate__
        and hasattr(env, "_ezpickle_args")
    )


def reduce_with_edits(env: Any) -> tuple:
    """
    :param env: an object of which :func:`keeps_arguments_only` holds
    :return: how to pickle it, as of ``object.__reduce__()``: its class, the arguments, and what was changed since
    :raises EditedEnvError: if a change cannot be carried over
    """
    # The original comes before its edits: these may refer to it.
    construction = type(env), env._ezpickle_args, env._ezpickle_kwargs
    return _construct, construction, _edits(env, construction) or None, None, None, _apply


def _construct(cls: type, args: tuple, kwargs: dict[str, Any]) -> Any:
    return cls(*args, **kwargs)


def _apply(env: Any, edits: list[Edit]) -> None:
    for edit in edits:
        edit.apply(env)


def _edits(env: Any, construction: tuple) -> list[Edit]:
    with contextlib.ExitStack() as new_envs:
        new = new_envs.enter_context(_new(construction))
        edits = list(_Comparison(env, new))
        # gymnasium.make() gives every environment its spec.
        if any(edit.path != ("spec",) and not is_stream(edit.value) for edit in edits):
            # What differs from one construction to the next was not changed by the user: a port, a handle.
            volatile = {edit.path for edit in _Comparison(new_envs.enter_context(_new(construction)), new)}
            edits = [edit for edit in edits if is_stream(edit.value) or edit.path not in volatile]
        return edits


@contextlib.contextmanager
def _new(construction: tuple) -> Iterator[Any]:
    """Another environment, as the constructor makes it."""
    with quiet():
        new = _construct(*construction)
    try:
        yield new
    finally:
        if hasattr(new, "close"):
            new.close()


class _Comparison:
    """
    The attributes in which an environment differs from a newly built one, wherever they can be told.

    Values are compared by what they pickle to. Objects that do not pickle, and those with a part that does not, are
    compared attribute by attribute if they are of Python, and number by number if they are a model of MuJoCo. Other
    native objects cannot be compared: they hold the state of an episode, or a window.
    """

    def __init__(self, env: Any, new: Any) -> None:
        self._env, self._new = env, new
        # The objects themselves, too, so that no other one gets their place in memory meanwhile.
        self._compared: dict[tuple[int, int], tuple[Any, Any]] = {}

    def __iter__(self) -> Iterator[Edit]:
        return self._compare((), self._env, self._new)

    def _compare(self, path: tuple[str, ...], old: Any, new: Any) -> Iterator[Edit]:
        if (id(old), id(new)) in self._compared:
            return
        self._compared[id(old), id(new)] = old, new
        olds, news = _attributes(old), _attributes(new)
        for name in {**olds, **news}:
            old_value, new_value = olds.get(name, _Missing.MISSING), news.get(name, _Missing.MISSING)
            for edit in self._compare_attribute((*path, name), old_value, new_value):
                if _is_of_model(new) and edit.path == (*path, name) and not _can_be_set(new, name, edit.value):
                    raise self._error(edit.path)
                yield edit

    def _compare_attribute(self, path: tuple[str, ...], old: Any, new: Any) -> Iterator[Edit]:
        if is_stream(old):
            # Also where it has not moved yet: the copies must not all draw the same numbers.
            yield Edit(path, old)
            return
        if old is new or _are_equal(old, new):
            return
        of_old, of_new = _pickled(old, self._env), _pickled(new, self._new)
        if of_old is not None:
            if of_old != of_new and not (of_new is None and old is _Missing.MISSING):
                yield Edit(path, old)
        elif of_new is None and type(old) is type(new):
            yield from self._compare(path, old, new)
        elif of_new is None:
            raise self._error(path)
        # Otherwise a native object where a new environment has none: one that is built when it is first needed.

    def _error(self, path: tuple[str, ...]) -> EditedEnvError:
        return EditedEnvError(
            f"{self._env} was changed after it was built, and samplers cannot do the same to their copies: its "
            f"attribute {'.'.join(path)} is another than its constructor makes. Pass a function that builds the "
            "environment and changes it, instead of the environment: AsyncPPO(policy, lambda: make_my_env())."
        )


def _attributes(value: Any) -> dict[str, Any]:
    """What a value consists of, by name; nothing if it cannot be told."""
    if _is_of_model(value):
        cls = type(value)
        names = [name for name in dir(cls) if name[0] != "_" and isinstance(getattr(cls, name), property)]
        return {name: getattr(value, name) for name in names}
    if type(value).__module__ == _MUJOCO or isinstance(value, type):
        return {}
    return getattr(value, "__dict__", {})


def _is_of_model(value: Any) -> bool:
    cls = type(value)
    return cls.__module__ == _MUJOCO and cls.__qualname__.split(".")[0] in _MUJOCO_MODEL


def _can_be_set(model: Any, name: str, value: Any) -> bool:
    """Whether a part of a MuJoCo model can be set: not its sizes and names, which make it another model."""
    if isinstance(value, np.ndarray):
        return value.shape == getattr(model, name).shape
    return getattr(type(model), name).fset is not None


def _are_equal(old: Any, new: Any) -> bool:
    """The answer where it is cheap; a model of MuJoCo has 600 numbers and arrays."""
    if type(old) is not type(new):
        return False
    if isinstance(old, np.ndarray):
        return (
            (old.dtype, old.shape) == (new.dtype, new.shape) and old.dtype != object and old.tobytes() == new.tobytes()
        )
    return isinstance(old, int | float | str | bytes) and old == new


def _pickled(value: Any, env: Any) -> bytes | None:
    """A value as bytes, ``None`` if there is something native in it."""
    try:
        with BytesIO() as file:
            _ValuePickler(file, env).dump(value)
            return file.getvalue()
    except Exception:
        # Anything that a native object raises, and a recursion that is too deep.
        return None


class _ValuePickler(cloudpickle.Pickler):
    """Pickles values without the environment that they belong to, and without what must not be there twice."""

    def __init__(self, file: BytesIO, env: Any) -> None:
        super().__init__(file)
        self._env = env

    def persistent_id(self, value: Any) -> str | None:
        return "env" if value is self._env else None

    def reducer_override(self, value: Any) -> Any:
        if type(value).__module__ == _MUJOCO or keeps_arguments_only(value):
            raise TypeError(f"{value} belongs to the environment")
        return super().reducer_override(value)
