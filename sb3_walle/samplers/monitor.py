"""SB3's Monitor, without the rest of SB3."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import gymnasium as gym

MONITOR_MODULE = "stable_baselines3.common.monitor"


@cache
def monitor_module() -> ModuleType:
    """
    SB3's own module, loaded from its file.

    Importing it the usual way runs the ``__init__`` of the packages around it, which import torch: seconds of start-up
    and a hundred megabytes in every sampler. It is registered under its own name, so that whoever imports SB3 later
    in this process gets this very module and there is never a second ``Monitor`` class. (Only as an attribute of its
    package, ``stable_baselines3.common.monitor`` without an import, it cannot be had.)
    """
    if MONITOR_MODULE in sys.modules:
        return sys.modules[MONITOR_MODULE]
    package = importlib.util.find_spec("stable_baselines3")
    if package is None or package.origin is None:
        raise ImportError("stable_baselines3 is not installed")
    path = Path(package.origin).parent / "common" / "monitor.py"
    spec = importlib.util.spec_from_file_location(MONITOR_MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MONITOR_MODULE] = module
    spec.loader.exec_module(module)
    return module


def monitored(env: gym.Env) -> gym.Env:
    """
    Wrap an environment in SB3's ``Monitor``, unless it already is.

    :param env: the environment
    :return: an environment that reports the return and length of every episode in ``info["episode"]``
    """
    monitor_class = monitor_module().Monitor
    return env if is_wrapped(env, monitor_class) else monitor_class(env)


def is_wrapped(env: gym.Env, wrapper_class: type[gym.Wrapper]) -> bool:
    """
    :param env: the environment
    :param wrapper_class: a wrapper class
    :return: whether one of the wrappers around the environment is of that class
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
