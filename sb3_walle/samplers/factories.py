"""How an environment travels to a sampler: as something picklable that builds it there."""

import fcntl
import io
import os
import pickle
import pickletools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cloudpickle
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, _find_spec, load_env_creator

from sb3_walle.samplers.monitor import MONITOR_MODULE, monitor_module

EnvFactory: TypeAlias = Callable[[], gym.Env]

# What multiprocessing calls the user's script in a process that it has spawned.
_SPAWNED_MAIN = "__mp_main__"

# What every row of a monitor file begins with: return, length and time of an episode.
_MONITOR_COLUMNS = ("r", "l", "t")


@dataclass(frozen=True)
class SpecFactory:
    """
    Builds an environment from its Gymnasium spec, as SB3 builds one from an id.

    The spec itself travels, not the id: a sampler has not run the user's ``gymnasium.register``.

    :param spec: the spec, with the wrappers that it records
    :param default_render_mode: asked for if the environment takes it, as SB3 does so that a video can be recorded
    """

    spec: EnvSpec
    default_render_mode: str | None = None

    def __call__(self) -> gym.Env:
        if self.default_render_mode is None:
            return gym.make(self.spec)
        try:
            return gym.make(self.spec, render_mode=self.default_render_mode)
        except TypeError:
            return gym.make(self.spec)

    def modules(self) -> set[str]:
        """Names of the modules that hold the environment's class and its wrappers."""
        entry_points = [self.spec.entry_point, *(wrapper.entry_point for wrapper in self.spec.additional_wrappers)]
        return {entry_point.partition(":")[0] for entry_point in entry_points if isinstance(entry_point, str)}


@dataclass(frozen=True)
class PickledEnv:
    """
    Brings an environment back that was pickled as it is.

    :param payload: the pickled environment
    """

    payload: bytes

    def __call__(self) -> gym.Env:
        return _EnvUnpickler(io.BytesIO(self.payload)).load()

    def modules(self) -> set[str]:
        """Names of the modules that the environment needs, other than SB3's Monitor, which is loaded without SB3."""
        return named_modules(self.payload) - {MONITOR_MODULE}


class _EnvPickler(cloudpickle.Pickler):
    """Pickles what cloudpickle does, and monitor files: the copy of an environment goes on with the original's file."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is monitor_module().ResultsWriter:
            _append_from_now_on(obj.file_handler)
            header, extra_keys, override_existing = None, obj.logger.fieldnames[len(_MONITOR_COLUMNS) :], False
            return type(obj), (obj.file_handler.name, header, extra_keys, override_existing)
        return super().reducer_override(obj)


class _EnvUnpickler(pickle.Unpickler):
    """Finds SB3's Monitor without importing the packages around it, and torch with them."""

    def find_class(self, module_name: str, name: str) -> Any:
        return (
            getattr(monitor_module(), name) if module_name == MONITOR_MODULE else super().find_class(module_name, name)
        )


def _append_from_now_on(file: io.TextIOWrapper) -> None:
    """Let the original write its rows behind those of the copies, rather than over them."""
    if not file.closed:
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)


def _pickled(env: gym.Env) -> bytes:
    with io.BytesIO() as file:
        _EnvPickler(file).dump(env)
        return file.getvalue()


def factory_from_id(env_id: str) -> SpecFactory:
    """
    :param env_id: id of a registered environment, ``"HalfCheetah-v4"`` or ``"module:Env-v0"``
    :return: a factory for it
    :raises gymnasium.error.Error: if there is no such environment, in Gymnasium's own words
    """
    # What gym.make() does with an id: import the module in front of it, choose the version, warn of an outdated one.
    return SpecFactory(_travelling(_find_spec(env_id)), default_render_mode="rgb_array")


def pickle_main_module_by_value() -> None:
    """
    Let what the user's script defines travel by value from a process that ``multiprocessing`` has spawned, too. There,
    the script is a module that cloudpickle takes for one that can be imported.
    """
    script = sys.modules.get(_SPAWNED_MAIN)
    if script is not None and script.__name__ == _SPAWNED_MAIN:
        cloudpickle.register_pickle_by_value(script)


def _travelling(spec: EnvSpec) -> EnvSpec:
    """The same spec, with the class itself where it names one of the user's main module, which samplers do not run."""
    if isinstance(spec.entry_point, str) and spec.entry_point.partition(":")[0] in ("__main__", _SPAWNED_MAIN):
        return replace(spec, entry_point=load_env_creator(spec.entry_point))  # type: ignore[arg-type]
    return spec


def factory_from_env(env: gym.Env) -> EnvFactory:
    """
    :param env: an environment that was built in this process
    :return: a factory that rebuilds it from its spec, or from a pickled copy where it has no spec or some wrapper
        around it does not record how it was made
    :raises TypeError: if it can travel neither way
    """
    spec = env.spec
    if spec is not None and all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers):
        return SpecFactory(_travelling(spec))
    try:
        return PickledEnv(_pickled(env))
    except Exception as error:
        raise TypeError(
            f"{env} was built in this process and cannot be moved to a sampler: it has no complete Gymnasium spec, and "
            f"pickling it failed ({type(error).__name__}: {error}). Pass a function that builds it instead, "
            f"e.g. AsyncPPO(policy, lambda: make_my_env())."
        ) from error


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
    return {word for word in words if word in sys.modules and word not in ("__main__", _SPAWNED_MAIN)}


def modules_for(factories: Iterable[EnvFactory]) -> set[str]:
    """
    What the samplers are going to import to build these environments.

    :param factories: the environments' factories
    :return: names of modules
    """
    modules: set[str] = set()
    for factory in factories:
        if isinstance(factory, SpecFactory | PickledEnv):
            modules |= factory.modules()
        else:
            modules |= named_modules(cloudpickle.dumps(factory))
    return modules
