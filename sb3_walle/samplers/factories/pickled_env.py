"""Environments that travel to samplers as they are."""

import fcntl
import io
import os
import pickle
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import gymnasium as gym

from sb3_walle.samplers.factories.edits import keeps_arguments_only, reduce_with_edits
from sb3_walle.samplers.factories.named_modules import named_modules
from sb3_walle.samplers.factories.spec import SpecFactory, can_be_rebuilt, without_main_module
from sb3_walle.samplers.factories.streams_of_copies import Stream, is_stream, tell_apart
from sb3_walle.samplers.monitor import MONITOR_MODULE, continued_writer, monitor_module, overrides
from sb3_walle.samplers.refusals import EditedEnvError
from sb3_walle.samplers.vectorized import check_single
from sb3_walle.user_warning import warn_user

# What every row of a monitor file begins with: return, length and time of an episode.
_MONITOR_COLUMNS = ("r", "l", "t")


@dataclass(frozen=True)
class PickledEnv:
    """
    Brings an environment back that was pickled as it is.

    Copies of one environment have the same generators, as a rule, in the same state. Each but the first has streams of
    its own instead.

    :param payload: the pickled environment
    :param copy: number of the copy
    :param incarnation: how many samplers with this copy have died before
    """

    payload: bytes
    copy: int = 0
    incarnation: int = 0

    def __call__(self) -> gym.Env:
        key = (self.copy, self.incarnation)
        return unpickled(self.payload, key if any(key) else None)

    def copies(self, n_copies: int) -> list["PickledEnv"]:
        """:return: factories of copies, the first of which has the original's random streams"""
        return [replace(self, copy=copy) for copy in range(n_copies)]

    def modules(self) -> set[str]:
        """Names of the modules that the environment needs, other than SB3's Monitor, which is loaded without SB3."""
        return named_modules(self.payload) - {MONITOR_MODULE}


def factory_from_env(env: gym.Env) -> PickledEnv | SpecFactory:
    """
    :param env: an environment that was built in this process
    :return: a factory of copies; or, with a warning, one that builds it anew from its spec, if it cannot be pickled
    :raises VectorizedEnvError: if it is a vectorised environment
    :raises EditedEnvError: if it was changed in a way that does not travel
    :raises TypeError: if it can travel neither way
    """
    check_single(env)
    try:
        return PickledEnv(pickled(env))
    except EditedEnvError:
        raise
    except Exception as error:
        obstacle = f"{type(error).__name__}: {error}"
        if not can_be_rebuilt(env.spec):
            raise TypeError(
                f"{env} was built in this process and cannot be moved to a sampler: pickling it failed ({obstacle}), "
                "and it has no complete Gymnasium spec. Pass a function that builds it instead, "
                "e.g. AsyncPPO(policy, lambda: make_my_env())."
            ) from error
    warn_user(
        f"{env} cannot be pickled ({obstacle}). Samplers build it anew from its Gymnasium spec, without what was "
        "changed in it since gymnasium.make(). Pass a function that builds it, as it has to be, instead: "
        "AsyncPPO(policy, lambda: make_my_env())."
    )
    assert env.spec is not None
    return SpecFactory(without_main_module(env.spec))


def pickled(value: Any) -> bytes:
    """
    :return: an environment, or what refers to environments, pickled with all that was changed in them
    :raises EditedEnvError: if a change does not travel
    """
    with io.BytesIO() as file:
        _EnvPickler(file).dump(value)
        return file.getvalue()


def unpickled(payload: bytes, key: tuple[int, ...] | None = None) -> Any:
    """
    :param payload: what :func:`pickled` has returned
    :param key: tells the random generators in it from those of other copies; ``None`` to leave them as they are
    """
    return _EnvUnpickler(io.BytesIO(payload), key).load()


class _EnvPickler(cloudpickle.Pickler):
    """
    Pickles what cloudpickle does, and monitor files, environments of which Gymnasium pickles the constructor's
    arguments only, and random generators in such a way that those of copies can be told apart.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._streams: dict[int, tuple[int, Stream]] = {}

    def persistent_id(self, value: Any) -> tuple[int, bytes] | None:
        if not is_stream(value):
            return None
        number, _ = self._streams.setdefault(id(value), (len(self._streams), value))
        return number, pickle.dumps(value)

    def reducer_override(self, value: Any) -> Any:
        if type(value) is monitor_module().ResultsWriter:
            _append_from_now_on(value.file_handler)
            extra_keys = value.logger.fieldnames[len(_MONITOR_COLUMNS) :]
            return continued_writer, (value.file_handler.name, extra_keys, overrides(value))
        if keeps_arguments_only(value):
            return reduce_with_edits(value)
        return super().reducer_override(value)


class _EnvUnpickler(pickle.Unpickler):
    """Undoes what the pickler did, and finds SB3's Monitor without importing the packages around it, like torch."""

    def __init__(self, file: io.BytesIO, key: tuple[int, ...] | None) -> None:
        super().__init__(file)
        self._key = key
        self._streams: dict[int, Stream] = {}

    def find_class(self, module_name: str, name: str) -> Any:
        if module_name == MONITOR_MODULE:
            return getattr(monitor_module(), name)
        return super().find_class(module_name, name)

    def persistent_load(self, value: tuple[int, bytes]) -> Stream:
        number, payload = value
        if number not in self._streams:
            self._streams[number] = stream = pickle.loads(payload)
            if self._key is not None:
                tell_apart(stream, (*self._key, number))
        return self._streams[number]


def _append_from_now_on(file: io.TextIOWrapper) -> None:
    """Let the original write its rows behind those of the copies, rather than over them."""
    if not file.closed:
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
