"""What the NumPy actor is made of, against SB3's preprocessing and torch's activation functions."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_helpers import ACTIVATION_MODULES, build_policy, flat, n_envs_of_sampler, observation_spaces, sample, seeds

from sb3_walle.samplers.actors.numpy_export import export_numpy_actor
from sb3_walle.samplers.actors.numpy_inputs import read_inputs
from sb3_walle.samplers.actors.numpy_layers import ACTIVATIONS
from sb3_walle.transport.chunk import row


@settings(deadline=None, max_examples=60)
@given(observation_space=observation_spaces, normalize_images=st.booleans(), n_envs=n_envs_of_sampler, seed=seeds)
def test_features_are_those_of_the_policy(
    observation_space: spaces.Space, normalize_images: bool, n_envs: int, seed: int
) -> None:
    # Without normalization, SB3 takes every observation of three dimensions in a dictionary for an image.
    normalize_images = normalize_images or isinstance(observation_space, spaces.Dict)
    policy = build_policy(observation_space, normalize_images=normalize_images)
    observations = sample(observation_space, 2, n_envs, seed % 1000)
    inputs = export_numpy_actor(policy, seed=0).inputs
    features = np.full((policy.features_dim, n_envs), np.nan, dtype=np.float32)
    read = read_inputs(inputs, features)
    expected = policy.extract_features(flat(observations)).reshape(2, n_envs, -1).numpy()
    for step in range(2):
        read(row(observations, step))
        np.testing.assert_array_equal(features.T, expected[step])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=40))
@pytest.mark.parametrize("activation_fn", ACTIVATION_MODULES, ids=lambda module: str(module()))
def test_activation_is_that_of_torch(activation_fn: Any, numbers: list[float]) -> None:
    policy = build_policy(net_arch=[2], activation_fn=activation_fn)
    _, activation = export_numpy_actor(policy, seed=0).layers
    values = np.array(numbers, dtype=np.float32).reshape(-1, 1)
    expected = activation_fn()(th.tensor(values)).numpy()
    steps = activation.compile(values)  # type: ignore[union-attr]
    for step in steps:
        step()
    # Where torch's GELU is nearly zero, it is the product of a number and the small difference of two large ones.
    atol = 1e-6 if activation_fn is th.nn.GELU else 3e-7
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=atol)


def test_every_activation_is_compared() -> None:
    assert {type(build()).__name__ for build in ACTIVATION_MODULES} == set(ACTIVATIONS)
