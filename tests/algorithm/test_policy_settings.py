"""A policy's own attributes, changed between two calls of learn(), count for samplers as they do for SB3."""

from typing import Any

import pytest
import torch as th
from oracle import assert_same, assert_same_weights
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, AsyncSAC

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 3, "device": "cpu"}
SAMPLERS: dict[str, Any] = {"n_samplers": 1, "mode": "sync", "learner": "eager", "actor": "torch"}


class ShiftedValues(ActorCriticPolicy):
    """Adds a number to its values while it acts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shift = 0.0

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        actions, values, log_probs = super().forward(obs, deterministic)
        return actions, values + self.shift, log_probs


class ScaledFeatures(FlattenExtractor):
    """Multiplies observations by a number."""

    scale = 1.0

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.scale * super().forward(observations)


def shift_values(policy: Any) -> None:
    policy.shift = 5.0


def scale_features(policy: Any) -> None:
    policy.features_extractor.scale = 3.0


def scale_actors_features(policy: Any) -> None:
    for part in (policy.actor, policy.critic):
        part.features_extractor.scale = 3.0


def trained(model: Any, change: Any) -> Any:
    """With a change of its policy in the middle. Torch's random stream belongs to one model at a time."""
    model.learn(64)
    change(model.policy)
    return model.learn(64, reset_num_timesteps=False)


@pytest.mark.parametrize(("change", "backend"), [(shift_values, "inline"), (scale_features, "process")])
def test_changes_between_two_calls_of_learn_equal_sb3(change: Any, backend: str) -> None:
    settings = {**SETTINGS, "policy_kwargs": {"features_extractor_class": ScaledFeatures, "net_arch": [8]}}
    oracle = trained(PPO(ShiftedValues, make_vec_env(RandomWalk, 1), **settings), change)
    samplers = {**SAMPLERS, "backend": backend}
    model = trained(AsyncPPO(ShiftedValues, RandomWalk, **settings, **samplers), change)
    assert_same_weights(oracle, model)
    model.get_env().close()


def test_changes_of_an_off_policy_algorithms_policy_equal_sb3() -> None:
    settings: dict[str, Any] = {
        "policy_kwargs": {"features_extractor_class": ScaledFeatures, "net_arch": [8]},
        "learning_starts": 10,
        "seed": 3,
        "device": "cpu",
    }
    oracle = trained(SAC("MlpPolicy", make_vec_env(RandomWalk, 1), **settings), scale_actors_features)
    model = trained(AsyncSAC("MlpPolicy", RandomWalk, **settings, **SAMPLERS, backend="inline"), scale_actors_features)
    assert_same(dict(oracle.policy.state_dict()), dict(model.policy.state_dict()), "policy")


@pytest.mark.parametrize("actor", ["numpy", "torch"])
def test_samplers_keep_their_copy_where_only_weights_have_changed(actor: str) -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, **SETTINGS, n_samplers=2, backend="inline", actor=actor)
    collectors = set()
    for _ in range(3):
        model.learn(64, reset_num_timesteps=False)
        model.policy.set_training_mode(True)
        collectors.add(model._experience.collector)
    assert len(collectors) == 1
