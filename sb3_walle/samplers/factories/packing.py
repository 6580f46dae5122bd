"""Getting the functions that build environments ready to travel to samplers."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cloudpickle
import gymnasium as gym

from sb3_walle.samplers.factories.call_arguments import CallArguments, call_arguments
from sb3_walle.samplers.factories.named_modules import named_modules
from sb3_walle.samplers.factories.pickled_env import PickledEnv, pickled, unpickled
from sb3_walle.samplers.factories.spec import SpecFactory
from sb3_walle.samplers.factories.unpicklable import unpicklable_error
from sb3_walle.samplers.monitor import MONITOR_MODULE
from sb3_walle.samplers.refusals import EditedEnvError, SharedEnvError

#: builds an environment, or a vectorised one; see :func:`~sb3_walle.samplers.factories.call_arguments.call_arguments`
EnvFactory: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class PackedFactories:
    """Factories that can be sent to samplers, and names of the modules that samplers import to build them."""

    factories: Sequence[EnvFactory]
    modules: set[str]


@dataclass(frozen=True)
class PickledFactory:
    """
    A function that refers to environments, which travel with it as they are. It may use those that other functions
    refer to, too, but not return them: each sampler would get a copy, all with the same random stream.

    :param payload: the function, and the environments that others refer to, pickled
    :param call_arguments: what the function is called with
    """

    payload: bytes
    call_arguments: CallArguments

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        factory, shared = unpickled(self.payload)
        env = factory(*args, **kwargs)
        if any(getattr(env, "unwrapped", env) is other for other in shared):
            raise SharedEnvError
        return env


def packed(factories: Sequence[EnvFactory]) -> PackedFactories:
    """
    Get factories ready to travel.

    :raises EditedEnvError: if one of them refers to an environment that was changed in a way that does not travel
    :raises TypeError: if one of them cannot be pickled, with what stands against it
    """
    modules: set[str] = set()
    envs_of: dict[int, list[gym.Env]] = {}
    for factory in factories:
        if isinstance(factory, SpecFactory | PickledEnv):
            modules |= factory.modules()
        elif id(factory) not in envs_of:
            payload, envs_of[id(factory)] = _envs_within(factory)
            modules |= named_modules(payload)
    n_holders = Counter(id(env) for factory in factories for env in envs_of.get(id(factory), ()))
    travelling: dict[int, EnvFactory] = {}
    for factory in factories:
        envs = envs_of.get(id(factory))
        if envs and id(factory) not in travelling:
            shared = [env for env in envs if n_holders[id(env)] > 1]
            travelling[id(factory)] = pickled_factory = _pickled_with_envs(factory, shared)
            modules |= named_modules(pickled_factory.payload) - {MONITOR_MODULE}
    return PackedFactories([travelling.get(id(factory), factory) for factory in factories], modules)


class _FactoryPickler(cloudpickle.Pickler):
    """Leaves out the environments that a function refers to, and takes them down."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.envs: dict[int, gym.Env] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, gym.Env):
            return None
        self.envs[id(value.unwrapped)] = value.unwrapped
        return id(value)


def _envs_within(factory: EnvFactory) -> tuple[bytes, list[gym.Env]]:
    """The factory without the environments that it refers to, pickled, and what is inside of their wrappers."""
    with io.BytesIO() as file:
        pickler = _FactoryPickler(file)
        try:
            pickler.dump(factory)
        except Exception as error:
            raise unpicklable_error(factory, error) from error
        return file.getvalue(), list(pickler.envs.values())


def _pickled_with_envs(factory: EnvFactory, shared: Sequence[gym.Env]) -> PickledFactory:
    try:
        return PickledFactory(pickled((factory, shared)), call_arguments(factory))
    except EditedEnvError:
        raise
    except Exception as error:
        raise unpicklable_error(factory, error) from error
