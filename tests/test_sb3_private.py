"""SB3's private names are in one file, and the installed version has all of them."""

import ast
import inspect
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import TRPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecVideoRecorder
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

import sb3_walle
from sb3_walle import sb3_private

ROOT = Path(sb3_walle.__file__).parent
FILE = ROOT / "sb3_private.py"
HOMES = (BaseAlgorithm, OffPolicyAlgorithm, BasePolicy)
ELSEWHERE = ("experiments", "cli")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_of(value: object) -> set[str]:
    return {name for name in dir(value) if is_private(name)}


@pytest.fixture(scope="module")
def by_argument() -> dict[str, list[set[str]]]:
    """The private names of SB3's objects, by what the functions of the one file call them."""
    on_policy = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8)
    on_policy._setup_learn(8)
    off_policy = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10)
    off_policy._setup_learn(8)
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))
    return {
        "trpo": [private_names_of(TRPO)],
        "algorithm": [private_names_of(on_policy), private_names_of(off_policy)],
        "vec_env": [private_names_of(DummyVecEnv([lambda: gym.make("CartPole-v1")]))],
        "buffer": [private_names_of(HerReplayBuffer)],
        "policy": [private_names_of(on_policy.policy), private_names_of(off_policy.policy)],
        "noise": [private_names_of(noise)],
        "callback": [private_names_of(CheckpointCallback)],
        "recorder": [private_names_of(VecVideoRecorder)],
    }


def names_used() -> set[tuple[str, str]]:
    """What the one file reads, sets and calls: the argument and the name."""
    nodes = ast.walk(ast.parse(FILE.read_text()))
    found = [node for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)]
    return {(ast.unparse(node.value), node.attr) for node in found}


def test_the_installed_sb3_has_all_names(by_argument: dict[str, list[set[str]]]) -> None:
    missing = {
        (argument, name) for argument, name in names_used() if any(name not in names for names in by_argument[argument])
    }
    assert not missing
    assert {argument for argument, _ in names_used()} == set(by_argument)


def test_the_installed_sb3_has_the_attributes_that_stay_behind_in_a_copy(
    by_argument: dict[str, list[set[str]]],
) -> None:
    names = {*sb3_private.LAST_STEP, sb3_private.VEC_NORMALIZE, sb3_private.LOGGER, sb3_private.HAS_CUSTOM_LOGGER}
    assert all(names <= found for found in by_argument["algorithm"])


def test_normal_noise_has_the_names_of_its_parameters() -> None:
    mean, sigma = sb3_private.mean_and_deviation(NormalActionNoise(np.full(2, 3.0), np.full(2, 4.0)))
    assert (mean.tolist(), sigma.tolist()) == ([3.0, 3.0], [4.0, 4.0])
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1), theta=0.5, dt=0.25)
    assert sb3_private.theta_and_dt(noise) == (0.5, 0.25)


@pytest.mark.parametrize("home", HOMES)
def test_the_installed_sb3_has_all_hooks(home: type) -> None:
    for name in sb3_private.HOOKS[home.__name__]:
        assert callable(getattr(home, name, None)), f"{home.__name__}.{name}"


def test_every_hook_that_is_overridden_is_listed() -> None:
    listed = {name for names in sb3_private.HOOKS.values() for name in names}
    ours = {
        name
        for kind in (sb3_walle.AsyncOnPolicyMixin, sb3_walle.AsyncOffPolicyMixin)
        for owner in kind.__mro__
        if owner.__module__.startswith("sb3_walle")
        for name in vars(owner)
    }
    of_sb3 = {name for kind in (PPO, SAC, DQN) for name in private_names_of(kind)}
    assert {name for name in ours & of_sb3 if is_private(name) and not name.startswith("_abc")} <= listed


def test_nothing_else_touches_private_names_of_sb3(by_argument: dict[str, list[set[str]]]) -> None:
    of_sb3 = set().union(*(names for group in by_argument.values() for names in group), private_names_of(ReplayBuffer))
    of_python = {"_abc_impl", *private_names_of(gym.Env)}
    for path in ROOT.rglob("*.py"):
        if path == FILE or path.relative_to(ROOT).parts[0] in ELSEWHERE:
            continue
        source = path.read_text()
        defined = set(names_defined_in(source))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and node.attr in of_sb3 - of_python - defined:
                of_super = ast.unparse(node.value) == "super()"
                assert of_super or node.attr in hooks_of_torch(), f"{path.relative_to(ROOT)} has {ast.unparse(node)}"


def names_defined_in(source: str) -> list[str]:
    """Methods, and attributes that a class sets of its own objects."""
    nodes = list(ast.walk(ast.parse(source)))
    methods = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    attributes = [
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    ]
    return methods + attributes


def hooks_of_torch() -> set[str]:
    """Torch's private names have a file of their own."""
    from torch import nn

    return private_names_of(nn.Module())


def test_every_function_says_what_it_is_for() -> None:
    functions = inspect.getmembers(sb3_private, inspect.isfunction)
    assert all(function.__doc__ for name, function in functions if function.__module__ == sb3_private.__name__)
