"""Environments that samplers build from a Gymnasium spec."""

import sys
from dataclasses import dataclass, replace

import cloudpickle
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, _find_spec, load_env_creator

# What multiprocessing calls the user's script in a process that it has spawned.
_SPAWNED_MAIN = "__mp_main__"
#: names of the user's script as a module, which samplers do not run
MAIN_MODULES = ("__main__", _SPAWNED_MAIN)


@dataclass(frozen=True)
class SpecFactory:
    """
    Builds an environment from its Gymnasium spec, as SB3 builds one from an id.

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


def factory_from_id(env_id: str) -> SpecFactory:
    """
    :param env_id: id of a registered environment, ``"HalfCheetah-v4"`` or ``"module:Env-v0"``
    :return: a factory for it
    :raises gymnasium.error.Error: if there is no such environment, in Gymnasium's own words
    """
    # What gym.make() does with an id: import the module in front of it, choose the version, warn of an outdated one.
    return SpecFactory(without_main_module(_find_spec(env_id)), default_render_mode="rgb_array")


def can_be_rebuilt(spec: EnvSpec | None) -> bool:
    """:return: whether ``gymnasium.make()`` can build the environment and all its wrappers from its spec"""
    if spec is None or not all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers):
        return False
    # SB3's BitFlippingEnv, for example, has a spec that names no class.
    return callable(spec.entry_point) or (isinstance(spec.entry_point, str) and ":" in spec.entry_point)


def without_main_module(spec: EnvSpec) -> EnvSpec:
    """:return: the spec, with the class itself where it names one of the user's main module"""
    if isinstance(spec.entry_point, str) and spec.entry_point.partition(":")[0] in MAIN_MODULES:
        return replace(spec, entry_point=load_env_creator(spec.entry_point))  # type: ignore[arg-type]
    return spec


def pickle_main_module_by_value() -> None:
    """
    Let what the user's script defines travel by value from a process that ``multiprocessing`` has spawned, too. There,
    the script is a module that cloudpickle takes for one that can be imported.
    """
    script = sys.modules.get(_SPAWNED_MAIN)
    if script is not None and script.__name__ == _SPAWNED_MAIN:
        cloudpickle.register_pickle_by_value(script)
