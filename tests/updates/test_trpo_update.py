"""A traced update of TRPO's critic gives the numbers of sb3-contrib's ``TRPO.train()``, within rounding."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import TRPO
from space_env import SpaceEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from update_pairs import (
    BOX,
    VECTOR,
    assert_close,
    collect,
    gradients,
    logged,
    optimizer_state,
    share_rollout,
)

from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.traced_step import trace_update
from sb3_walle.updates.trpo_update import TRPOUpdate, update_critic, update_policy

DICTIONARY = gym.spaces.Dict({"place": VECTOR, "kind": gym.spaces.Discrete(4)})
# Relative to the largest number of a tensor: conjugate gradients make more of rounding than a step of Adam.
TOLERANCE = 1e-3
IMAGE = gym.spaces.Box(0, 255, (3, 36, 36), np.uint8)


def made(policy: str, observation_space: gym.Space, action_space: gym.Space, **settings: Any) -> Any:
    """A model with a rollout in its buffer, the same one every time."""
    with warnings.catch_warnings():
        # That a last minibatch is smaller is intended.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        env = DummyVecEnv([lambda: SpaceEnv(observation_space, action_space)] * 2)
        arguments = {"n_steps": 20, "batch_size": 16, "n_critic_updates": 3, "seed": 3, "device": "cpu", **settings}
        model: Any = TRPO(policy, env, **copy.deepcopy(arguments))
    model.set_logger(Logger(None, []))
    collect(model)
    return model


@pytest.mark.parametrize(
    "case",
    [
        ("MlpPolicy", VECTOR, BOX, {}),
        (
            "MlpPolicy",
            VECTOR,
            gym.spaces.Discrete(3),
            {"policy_kwargs": {"net_arch": [8], "activation_fn": th.nn.ReLU}},
        ),
        ("MlpPolicy", VECTOR, BOX, {"use_sde": True}),
        ("MultiInputPolicy", DICTIONARY, BOX, {}),
        # What extracts features is the actor's as well, and moves between two updates of the critic.
        ("CnnPolicy", IMAGE, BOX, {}),
        ("CnnPolicy", IMAGE, BOX, {"policy_kwargs": {"share_features_extractor": False}}),
    ],
    ids=["continuous", "discrete", "gSDE", "dictionaries", "shared extractor", "separate extractors"],
)
def test_traced_updates_are_those_of_sb3_contrib(case: tuple[Any, ...]) -> None:
    *arguments, settings = case
    oracle, model = made(*arguments, **settings), made(*arguments, **settings)
    update, calls = TRPOUpdate(model), []
    groups = update.make_groups()
    steps = trace_update(update, groups)

    def program(inputs: list[th.Tensor]) -> th.Tensor:
        calls.append(inputs)
        return steps["update"].graph(*inputs)[0]

    def train(number: int) -> None:
        update_policy(model)
        make_update(update, groups, steps, {"update": program}, number, is_compared=True)

    assert_same_updates(oracle, model, train)
    # Of three minibatches an epoch, the last one is smaller, and eager.
    assert len(calls) == 2 * 3 * 2


def test_eager_updates_are_those_of_sb3_contrib() -> None:
    oracle, model = made("CnnPolicy", IMAGE, BOX), made("CnnPolicy", IMAGE, BOX)
    assert_same_updates(oracle, model, lambda number: update_critic(model, update_policy(model)))


def assert_same_updates(oracle: Any, model: Any, train: Callable[[int], None]) -> None:
    """Update a model twice from the rollouts of another one, and compare all that remains of it."""
    for number in (1, 2):
        if number > 1:
            collect(oracle)
        share_rollout(oracle, model)
        states = []
        for each in (oracle, model):
            np.random.seed(number)
            th.manual_seed(number)
            each.logger.name_to_value.clear()
            if each is oracle:
                oracle.train()
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    train(number)
            states.append((np.random.get_state()[1:3], th.get_rng_state()))
        np.testing.assert_equal(states[0][0], states[1][0])
        assert th.equal(states[0][1], states[1][1])
        assert_close(dict(model.policy.state_dict()), dict(oracle.policy.state_dict()), TOLERANCE, "policy")
        assert_close(optimizer_state(model), optimizer_state(oracle), TOLERANCE, "optimizer")
        assert_close(gradients(model), gradients(oracle), 10 * TOLERANCE, "gradients")
        assert_close(logged(model), logged(oracle), TOLERANCE, "logged")
        assert model._n_updates == oracle._n_updates == number
