"""Small graphs and algorithms to compile, and compilers that do not compile."""

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import pytest
import torch as th
from process_helpers import is_alive, processes, status_fields
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.ppo import PPO
from torch.fx import GraphModule

from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.traced_step import TracedStep, trace_update
from sb3_walle.updates.tracing import trace
from sb3_walle.updates.unsupported import Unsupported

# Graphs and algorithms


def skip_without_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        pytest.skip("needs a C++ compiler")


SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


def cart_pole() -> gym.Env:
    return gym.make("CartPole-v1")


def algorithm(**settings: Any) -> PPO:
    """SB3's own, with a small network."""
    env = DummyVecEnv([cart_pole])
    return PPO("MlpPolicy", env, **{**SETTINGS, **settings})


def trace_ppo(model: PPO) -> TracedStep:
    """The step of a model."""
    update = PPOUpdate(model)
    update.check()
    return trace_update(update, update.make_groups())["update"]


def blueprint_of(traced: TracedStep, is_parallel: bool = False) -> Blueprint:
    return Blueprint.of(traced.graph, traced.inputs, is_parallel)


def blueprint(is_parallel: bool = False, **settings: Any) -> Blueprint:
    """What the step of a small algorithm is compiled from."""
    return blueprint_of(trace_ppo(algorithm(**settings)), is_parallel)


def tiny_blueprint() -> Blueprint:
    """What is traced at once. To compile it takes as long as anything."""
    return Blueprint.of(graph_of(lambda values: (values + 1,), [th.zeros(2)]), [th.zeros(2)], is_parallel=False)


def graph_of(function: Callable[..., Any], inputs: Sequence[th.Tensor]) -> GraphModule:
    return trace(function, inputs)


# A compiler that takes as long as a test likes, and then fails


def slow_compiler(folder: Path) -> Path:
    """
    :param folder: where it says that it has begun, by a file ``begun``, and waits for a file ``end``
    :return: an executable to set the environment variable ``CXX`` to
    """
    path = folder / "compiler"
    path.write_text(
        f'#!/bin/sh\ntouch "$TMPDIR/of_the_compiler" "{folder}/begun"\n'
        f'while [ ! -e "{folder}/end" ]; do sleep 0.05; done\nexit 1\n'
    )
    path.chmod(0o700)
    return path


def members_of_group(group: int) -> list[int]:
    """Processes of a group that are still alive."""
    return [pid for pid in processes() if is_alive(pid) and status_fields(pid)[2:3] == [str(group)]]


def compile_processes() -> set[int]:
    """Processes that this one has started to compile, and that are still alive."""
    own = {pid for pid in processes() if is_alive(pid) and status_fields(pid)[1:2] == [str(os.getpid())]}
    return {pid for pid in own if "compile_process" in Path(f"/proc/{pid}/cmdline").read_text()}


# What stands in for a compiler where only its place in a training is tested


class FakeProgram:
    """
    Runs the graph itself.

    :param path: file that :class:`FakeBuild` has made
    """

    def __init__(self, path: Path) -> None:
        try:
            self._graph = pickle.loads(path.read_bytes()).build()
        except pickle.UnpicklingError as error:
            raise Unsupported("it cannot be loaded") from error

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        return self._graph(*inputs)[0]


class FakeBuild:
    """
    Is done when a caller waits for it, or a test says so.

    :param blueprint: what it stands in for compiling
    :param path: where to put it
    """

    #: all builds of the test
    begun: ClassVar[list["FakeBuild"]] = []
    #: whether what is begun is done
    are_done: ClassVar[bool] = False
    #: why it cannot be compiled
    reason: ClassVar[str | None] = None
    seconds: ClassVar[float] = 12.0

    def __init__(self, blueprint: Blueprint, path: Path) -> None:
        self.blueprint, self._path = blueprint, path
        self.was_waited_for = self.is_closed = False
        self.begun.append(self)

    def is_done(self, wait: bool = False) -> bool:
        self.was_waited_for = self.was_waited_for or wait
        if not (wait or self.are_done):
            return False
        if self.reason is not None:
            raise Unsupported(self.reason)
        self._path.write_bytes(pickle.dumps(self.blueprint.graph))
        return True

    def close(self) -> None:
        self.is_closed = True
