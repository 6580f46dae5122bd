"""Algorithms of sb3-contrib on samplers."""

from typing import Any

import pytest
from off_policy_pairs import Walk, tiny
from oracle import assert_same_policies
from sb3_contrib import QRDQN, TQC
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncOffPolicyMixin
from sb3_walle.collection.modes import MODES


class AsyncTQC(AsyncOffPolicyMixin, TQC):
    pass


class AsyncQRDQN(AsyncOffPolicyMixin, QRDQN):
    pass


PAIRS = {"TQC": (TQC, AsyncTQC, Walk), "QR-DQN": (QRDQN, AsyncQRDQN, "CartPole-v1")}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_training_equals_that_of_sb3_contrib(pair: tuple[Any, Any, Any]) -> None:
    original, ours, env = pair
    oracle = original("MlpPolicy", make_vec_env(env, 2), **tiny()).learn(120)
    with ours("MlpPolicy", env, n_samplers=1, envs_per_sampler=2, mode="sync", backend="inline", **tiny()) as model:
        model.learn(120)
        assert_same_policies(oracle, model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_they_learn_in_every_mode(pair: tuple[Any, Any, Any], mode: str) -> None:
    _, ours, env = pair
    with ours("MlpPolicy", env, n_samplers=3, mode=mode, backend="inline", **tiny()) as model:
        model.learn(90)
        assert model._n_updates > 0 and model.num_timesteps >= 90
    with pytest.raises(ValueError, match=f"{ours.__name__} makes another one"):
        ours("MlpPolicy", env, n_samplers=1, backend="inline", learner="compiled", **tiny())
