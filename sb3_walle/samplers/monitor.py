"""SB3's Monitor, without the rest of SB3."""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym

MONITOR_MODULE = "stable_baselines3.common.monitor"


@cache
def monitor_module() -> ModuleType:
    """
    SB3's own module, loaded from its file.

    Importing it the usual way runs the ``__init__`` of the packages around it, which import torch: seconds of start-up
    and a hundred megabytes in every sampler. It is registered under its own name, so that a later import of SB3
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
    """Wrap an environment in SB3's ``Monitor``, unless it already is, for the ``info["episode"]`` of every episode."""
    monitor_class = monitor_module().Monitor
    return env if is_wrapped(env, monitor_class) else monitor_class(env)


def is_wrapped(env: gym.Env, wrapper_class: type[gym.Wrapper]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False


def innermost_monitor(env: gym.Env) -> Any:
    """:return: the ``Monitor`` that is nearest to the environment itself, ``None`` if there is none around it"""
    monitor_class, found = monitor_module().Monitor, None
    while isinstance(env, gym.Wrapper):
        found = env if isinstance(env, monitor_class) else found
        env = env.env
    return found


def continued_writer(path: str, extra_keys: Sequence[str], overrides_existing: bool) -> Any:
    """
    :param path: name of a monitor file that exists
    :param extra_keys: its columns after SB3's own
    :param overrides_existing: whether the writer that opened it first replaced an older file
    :return: SB3's ``ResultsWriter`` that appends to it
    """
    writer = monitor_module().ResultsWriter(path, None, tuple(extra_keys), override_existing=False)
    writer.overrides_existing = overrides_existing
    return writer


def overrides(writer: Any) -> bool:
    """:return: whether a file of SB3's ``ResultsWriter`` takes the place of one that exists"""
    return getattr(writer, "overrides_existing", writer.file_handler.mode.startswith("w"))


def monitor_files(env: gym.Env) -> tuple[str, ...]:
    """:return: names of the monitor files that an environment writes"""
    return tuple(monitor.results_writer.file_handler.name for monitor in _writing_monitors(env))


def write_own_files(env: gym.Env, number: int, owners: Mapping[str, int]) -> None:
    """
    Let an environment write files of its own instead of those that others write, too.

    :param env: the environment
    :param number: its number among all environments
    :param owners: which environment a file belongs to. The others write one with their number in front of its name
    """
    for monitor in _writing_monitors(env):
        writer = monitor.results_writer
        path = Path(writer.file_handler.name)
        if str(path) not in owners:
            continue
        is_owner = owners[str(path)] == number
        if is_owner and writer.file_handler.mode.startswith("a"):
            continue
        own_path = path if is_owner else path.with_name(f"{number}.{path.name}")
        writer.close()
        header = {"t_start": monitor.t_start, "env_id": str(None if monitor.spec is None else monitor.spec.id)}
        monitor.results_writer = monitor_module().ResultsWriter(
            str(own_path),
            header,
            monitor.reset_keywords + monitor.info_keywords,
            override_existing=overrides(writer) or not own_path.exists(),
        )


def write_no_files(env: gym.Env) -> None:
    """
    :param env: an environment whose episodes are of no interest to the user
    """
    for monitor in _writing_monitors(env):
        monitor.results_writer.close()
        monitor.results_writer = None


@contextlib.contextmanager
def continuing_files() -> Iterator[None]:
    """Where an environment is built once more: its rows belong after those of the first one, whose place it takes."""
    writer_class = monitor_module().ResultsWriter
    original = writer_class.__init__

    def continuing(
        self: Any,
        filename: str = "",
        header: dict[str, Any] | None = None,
        extra_keys: tuple[str, ...] = (),
        override_existing: bool = True,
    ) -> None:
        original(self, filename, header, extra_keys, override_existing=False)
        if os.path.getsize(self.file_handler.name) == 0:
            # As SB3 begins a file.
            self.file_handler.write(f"#{json.dumps(header or {})}\n")
            self.logger.writeheader()
            self.file_handler.flush()

    writer_class.__init__ = continuing
    try:
        yield
    finally:
        writer_class.__init__ = original


def _writing_monitors(env: gym.Env) -> Iterator[Any]:
    monitor_class = monitor_module().Monitor
    while isinstance(env, gym.Wrapper):
        if isinstance(env, monitor_class) and env.results_writer and not env.results_writer.file_handler.closed:
            yield env
        env = env.env
