"""
Environments that a command names: whether they can be made at all, and making many without many warnings.

Samplers import this, so it does without SB3, and torch with it.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from sb3_walle.cli.arguments import UsageError
from sb3_walle.samplers.factories import SpecFactory, factory_from_id
from sb3_walle.samplers.monitor import monitored
from sb3_walle.samplers.quiet import quiet


@contextmanager
def usage_errors() -> Iterator[None]:
    """
    Turn an algorithm's refusal of its arguments or of an environment's spaces into a :class:`UsageError`.

    Only its constructor belongs into the block: exceptions from training keep their traceback.
    """
    try:
        yield
    except (ValueError, AssertionError, NotImplementedError) as error:
        if not str(error):
            raise
        raise UsageError(str(error)) from error


def check_environment(env_id: str) -> gym.Env:
    """
    Make the environment once and close it again.

    Samplers make their environments in other processes, where the reason why they could not would be at the bottom of
    a long traceback. Exceptions from inside the environment itself are left alone.

    :return: the closed environment, whose spaces can still be looked at
    :raises UsageError: if there is no such environment, or if a package that it needs is not installed
    """
    module, colon, _ = env_id.partition(":")
    try:
        if colon:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that the named one misses itself is not a misspelt environment.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"environment '{env_id}': there is no module '{error.name}'") from error
    try:
        # Only looks it up, and does not import modules.
        gym.spec(env_id.rpartition(":")[2])
    except gym.error.Error as error:
        raise UsageError(f"unknown environment '{env_id}': {error}") from error
    try:
        with quiet():
            env = gym.make(env_id)
    except gym.error.DependencyNotInstalled as error:
        raise UsageError(f"environment '{env_id}' needs a package that is not installed: {error}") from error
    env.close()
    return env


@dataclass(frozen=True)
class WrapperSpec:
    """
    A wrapper around an environment, imported only where an environment is built.

    :param path: its module and class, as in ``"stable_baselines3.common.atari_wrappers.AtariWrapper"``
    :param arguments: its arguments but for the environment
    """

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def class_name(self) -> str:
        return self.path.rpartition(".")[2]

    def wrap(self, env: gym.Env) -> gym.Env:
        wrapper_class = getattr(importlib.import_module(self.module), self.class_name)
        return wrapper_class(env, **self.arguments)


@dataclass(frozen=True)
class QuietFactory(SpecFactory):
    """
    Builds an environment without the warnings that Gymnasium and MuJoCo give about the age of many of them.

    :param wrappers: wrappers around it, from the inside to the outside
    """

    wrappers: tuple[WrapperSpec, ...] = ()

    def __call__(self) -> gym.Env:
        with quiet():
            env = super().__call__()
            if self.wrappers:
                # As with SB3's make_vec_env, returns are those of the environment itself.
                env = monitored(env)
            for wrapper in self.wrappers:
                env = wrapper.wrap(env)
        return env

    def modules(self) -> set[str]:
        """Names of the modules that hold the environment's class and its wrappers."""
        return super().modules() | {wrapper.module for wrapper in self.wrappers}


def quiet_factory(env_id: str, wrappers: tuple[WrapperSpec, ...] = ()) -> QuietFactory:
    with quiet():
        factory = factory_from_id(env_id)
    return QuietFactory(factory.spec, factory.default_render_mode, wrappers)
