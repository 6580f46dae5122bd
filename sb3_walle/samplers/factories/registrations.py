"""What the learner's process has registered with Gymnasium, for samplers to register, too."""

import os
import pickle
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from sb3_walle.samplers.factories.spec import without_main_module

# A forked process has the same one, and another process number.
_INTERPRETER = uuid.uuid4()


@dataclass(frozen=True)
class Registrations:
    """
    The specs of one process's registry. Nothing that they refer to is imported before an environment is made of it.

    :param process: where they come from
    :param specs: the specs, pickled
    """

    process: tuple[uuid.UUID, int]
    specs: bytes

    @classmethod
    def of_this_process(cls) -> "Registrations":
        """:return: all that is registered in this process"""
        specs = [_picklable(spec) for spec in gym.registry.values()]
        return cls(_this_process(), pickle.dumps(specs, pickle.HIGHEST_PROTOCOL))

    def register(self) -> None:
        """Register the same in this process, unless it is where they come from."""
        if self.process != _this_process():
            gym.registry.update({spec.id: spec for spec in pickle.loads(self.specs)})


class RegistryWatch:
    """Notices what is registered with Gymnasium as time passes. It has seen nothing yet."""

    def __init__(self) -> None:
        self._seen: dict[str, EnvSpec] = {}

    def news(self) -> Registrations | None:
        """:return: all that is registered, if that has changed since the last call"""
        registry = gym.registry
        if all(self._seen.get(env_id) is spec for env_id, spec in registry.items()):
            return None
        self._seen = dict(registry)
        return Registrations.of_this_process()


class PickledEntryPoint:
    """
    Builds an environment as a registered function or class does, with the arguments that were registered with it. It
    unpickles both when they are needed: a sampler that makes other environments neither imports what they refer to nor
    fails where that is impossible.

    :param payload: function or class, and its arguments, pickled; ``None`` if that failed
    :param obstacle: why it failed
    """

    def __init__(self, payload: bytes | None, obstacle: str = "") -> None:
        self._payload, self._obstacle = payload, obstacle

    def __call__(self, **kwargs: Any) -> gym.Env:
        entry_point, registered_kwargs = self._unpickled()
        return entry_point(**{**registered_kwargs, **kwargs})

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Gymnasium's metadata of the class."""
        # gymnasium.make() does without for functions, which have none.
        return self._unpickled()[0].metadata

    def _unpickled(self) -> tuple[Any, dict[str, Any]]:
        if self._payload is None:
            raise RuntimeError(self._obstacle)
        entry_point, kwargs = pickle.loads(self._payload)
        return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point, kwargs


def _picklable(spec: EnvSpec) -> EnvSpec:
    """A spec of strings and numbers only, or with a :class:`PickledEntryPoint`."""
    # Samplers make single environments only.
    vector_entry_point = spec.vector_entry_point if isinstance(spec.vector_entry_point, str) else None
    spec = replace(spec, vector_entry_point=vector_entry_point)
    try:
        spec = without_main_module(spec)
        if isinstance(spec.entry_point, str | None) and _is_plain(vars(spec)):
            return spec
        if not _is_plain(spec.additional_wrappers):
            raise TypeError("its wrappers were registered with arguments that are no numbers and strings")
        payload, obstacle = cloudpickle.dumps((spec.entry_point, spec.kwargs)), ""
    except Exception as error:
        payload = None
        obstacle = (
            f"{spec.id} is registered in the learner's process only: its entry point and arguments cannot be sent to "
            f"samplers ({type(error).__name__}: {error}). Register it in a module, and import that in the function "
            "that builds the environment, or build it without gymnasium.make()."
        )
    return EnvSpec(
        spec.id,
        entry_point=PickledEntryPoint(payload, obstacle),
        reward_threshold=spec.reward_threshold,
        nondeterministic=spec.nondeterministic,
        max_episode_steps=spec.max_episode_steps,
        order_enforce=spec.order_enforce,
        disable_env_checker=spec.disable_env_checker,
        additional_wrappers=spec.additional_wrappers if payload else (),
    )


def _is_plain(value: Any) -> bool:
    """Whether unpickling it imports nothing but NumPy."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(_is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, np.generic) or type(value) in (bool, int, float, complex, str, bytes)


def _this_process() -> tuple[uuid.UUID, int]:
    return _INTERPRETER, os.getpid()
