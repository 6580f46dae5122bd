"""Observations and actions of every data type: with mode="sync" and one sampler, all is SB3's to the last bit."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch as th
from gymnasium import spaces
from oracle import assert_same
from space_env import SpaceEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise

import sb3_walle

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS = {
    "float16": spaces.Box(-2.0, 5.0, (3,), np.float16),
    "float32": VECTOR,
    "float64": spaces.Box(-2.0, 5.0, (3,), np.float64),
    "uint8": spaces.Box(0, 255, (3,), np.uint8),
    "int8": spaces.Box(-9, 9, (3,), np.int8),
    "int32": spaces.Box(-9, 9, (3,), np.int32),
    "int64": spaces.Box(-9, 9, (3,), np.int64),
    "category of int32": spaces.Discrete(5, dtype=np.int32),
    "bits of int8": spaces.MultiBinary(3),
}
# No power of two lies between the bounds: scaling rounds.
BOXES = {
    "float16": spaces.Box(-2.7, 5.1, (2,), np.float16),
    "float32": spaces.Box(-2.7, 5.1, (2,), np.float32),
    "float64": spaces.Box(np.array([-2.7, 0.3]), np.array([5.1, 0.7]), dtype=np.float64),
    "int8": spaces.Box(-3, 7, (2,), np.int8),
    "uint8": spaces.Box(0, 255, (2,), np.uint8),
    "int32": spaces.Box(-3, 7, (2,), np.int32),
    "int64": spaces.Box(-3, 7, (2,), np.int64),
}
CATEGORIES = {
    "category of int64": spaces.Discrete(3),
    "category of int32": spaces.Discrete(3, dtype=np.int32),
    "categories of int32": spaces.MultiDiscrete([2, 3], dtype=np.int32),
    "bits of int8": spaces.MultiBinary(3),
}
SMALL: dict[str, Any] = {"seed": 3, "device": "cpu", "policy_kwargs": {"net_arch": [8, 8]}}
ON_POLICY: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 12, "batch_size": 12, "n_epochs": 1},
    "A2C": {"n_steps": 8},
}
OFF_POLICY: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "buffer_size": 100}
N_STEPS = 24


class WideNoise(ActionNoise):
    """Noise as users write it, which is of float64."""

    def __call__(self) -> np.ndarray:
        return np.random.normal(0.0, 0.3, size=2)


NOISES = {
    "float32": lambda: NormalActionNoise(np.zeros(2), 0.3 * np.ones(2)),
    "float64": lambda: NormalActionNoise(np.zeros(2), 0.3 * np.ones(2), dtype=np.float64),
    "a user's own": WideNoise,
}


class Shown(BaseCallback):
    """
    Keeps what a callback is shown of every step.

    :param names: of local variables
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.steps = names, []  # type: ignore[var-annotated]

    def _on_step(self) -> bool:
        # SB3 changes some of them in place.
        self.steps.append({name: np.array(self.locals[name]) for name in self.names})
        self.steps[-1]["infos"] = [dict(info) for info in self.locals["infos"]]
        return True


def assert_same_training(name: str, env: partial, n_envs: int, *shown: str, **settings: Any) -> None:
    """Environments are given the same actions, callbacks are shown the same, and the same policy comes of it."""
    trained = []
    for algorithm, arguments in (
        (getattr(stable_baselines3, name), {"env": make_vec_env(env, n_envs)}),
        (
            getattr(sb3_walle, f"Async{name}"),
            {"env": env, "n_samplers": 1, "envs_per_sampler": n_envs, "mode": "sync", "actor": "torch"}
            | {"backend": "inline"},
        ),
    ):
        noise = settings.get("action_noise")
        fresh = {} if noise is None else {"action_noise": noise()}
        model = algorithm("MlpPolicy", **arguments, **copy.deepcopy({**SMALL, **settings, **fresh}))
        callback = Shown("new_obs", "rewards", "dones", *shown)
        model.learn(N_STEPS * n_envs, callback=callback)
        trained.append((callback.steps, model.policy.state_dict(), model))
        model.get_env().close()
    (expected, weights, oracle), (found, our_weights, ours) = trained
    assert len(expected) == N_STEPS
    assert_same(expected, found, "steps")
    assert all(th.equal(value, our_weights[key]) for key, value in weights.items())
    buffer = "replay_buffer" if hasattr(oracle, "replay_buffer") else "rollout_buffer"
    for array in ("observations", "actions", "rewards"):
        assert_same(getattr(getattr(oracle, buffer), array), getattr(getattr(ours, buffer), array), array)


@pytest.mark.parametrize(
    ("algorithm", "observations"),
    [
        # One with a rollout buffer and one with a replay buffer have all, the others a few that differ in kind.
        *((algorithm, name) for algorithm in ("PPO", "SAC") for name in OBSERVATIONS),
        *(("A2C", name) for name in ("float64", "uint8", "category of int32")),
        *(("TD3", name) for name in ("float16", "int64")),
        ("DDPG", "float64"),
        *(("DQN", name) for name in ("float64", "uint8", "bits of int8")),
    ],
)
def test_observations(algorithm: str, observations: str) -> None:
    actions = CATEGORIES["category of int64"] if algorithm == "DQN" else BOXES["float64"]
    settings = ON_POLICY.get(algorithm, OFF_POLICY)
    assert_same_training(algorithm, partial(SpaceEnv, OBSERVATIONS[observations], actions), 2, **settings)


@pytest.mark.parametrize(
    ("algorithm", "actions"),
    [
        *(("PPO", name) for name in BOXES | CATEGORIES),
        *(("A2C", name) for name in ("float64", "int8", "category of int32", "bits of int8")),
    ],
)
def test_actions_of_on_policy_algorithms(algorithm: str, actions: str) -> None:
    env = partial(SpaceEnv, VECTOR, (BOXES | CATEGORIES)[actions])
    assert_same_training(algorithm, env, 2, "actions", "clipped_actions", **ON_POLICY[algorithm])


@pytest.mark.parametrize(
    ("algorithm", "actions", "n_envs"),
    [
        *(("SAC", name, 2) for name in BOXES),
        *(("SAC", name, 1) for name in ("float64", "int8")),
        # SB3's updates of the others fail on integers.
        *((algorithm, name, n) for algorithm, n in (("TD3", 2), ("DDPG", 1)) for name in BOXES if "float" in name),
    ],
)
def test_actions_of_off_policy_algorithms(algorithm: str, actions: str, n_envs: int) -> None:
    assert_same_training(algorithm, partial(SpaceEnv, VECTOR, BOXES[actions]), n_envs, **OFF_POLICY)


@pytest.mark.parametrize("actions", ["float32", "float64", "int64"])
def test_callbacks_are_shown_actions_in_sb3s_data_type(actions: str) -> None:
    env = partial(SpaceEnv, VECTOR, BOXES[actions])
    assert_same_training("SAC", env, 2, "actions", "buffer_actions", **OFF_POLICY)


@pytest.mark.parametrize("actions", ["category of int64", "category of int32"])
def test_actions_of_dqn(actions: str) -> None:
    assert_same_training("DQN", partial(SpaceEnv, VECTOR, CATEGORIES[actions]), 2, **OFF_POLICY)


@pytest.mark.parametrize(
    ("actions", "noise", "n_envs"),
    [
        (actions, noise, 1 + (i + j) % 2)
        for i, actions in enumerate(("float32", "float64"))
        for j, noise in enumerate(NOISES)
    ],
)
def test_noise_of_another_data_type(actions: str, noise: str, n_envs: int) -> None:
    env = partial(SpaceEnv, VECTOR, BOXES[actions])
    assert_same_training("TD3", env, n_envs, "actions", "buffer_actions", action_noise=NOISES[noise], **OFF_POLICY)
