"""The NumPy actor against SB3's own policy."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_helpers import (
    ACTION_SPACES,
    ACTIVATION_MODULES,
    BOX,
    build_actor,
    build_policy,
    empty_chunk,
    evaluate,
    fill,
    flat,
    layer_sizes,
    load,
    n_envs_of_sampler,
    observation_spaces,
    sample,
    seeds,
    tolerance,
)
from torch import nn

import sb3_walle.samplers.actors.numpy_actor as numpy_actor
from sb3_walle.samplers.actors.numpy_actor import NumPyActor
from sb3_walle.samplers.actors.numpy_export import export_numpy_actor, why_not_numpy
from sb3_walle.transport.chunk import row


@settings(deadline=None, max_examples=80)
@given(
    observation_space=observation_spaces,
    action_space=st.sampled_from(ACTION_SPACES),
    pi=layer_sizes,
    activation_fn=st.sampled_from(ACTIVATION_MODULES),
    share_features_extractor=st.booleans(),
    log_std_init=st.floats(-6.0, 3.0),
    n_envs=n_envs_of_sampler,
    seed=seeds,
)
def test_log_probs_are_those_of_the_policy(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    pi: list[int],
    activation_fn: Any,
    share_features_extractor: bool,
    log_std_init: float,
    n_envs: int,
    seed: int,
) -> None:
    policy = build_policy(
        observation_space,
        action_space,
        seed,
        net_arch={"pi": pi, "vf": [2]},
        activation_fn=activation_fn,
        log_std_init=log_std_init,
        share_features_extractor=share_features_extractor,
    )
    assert why_not_numpy(policy) is None
    observations = sample(observation_space, 4, n_envs, seed % 1000)
    chunk = fill(build_actor(policy, n_envs, seed), empty_chunk(policy, 4, n_envs), observations)

    np.testing.assert_allclose(
        chunk.arrays["log_probs"],
        evaluate(policy, observations, chunk.actions),
        rtol=1e-4,
        atol=tolerance(policy, observations),
    )
    with th.no_grad():
        actions, _, log_probs = policy(flat(observations))
    assert chunk.actions.dtype == actions.numpy().dtype
    assert chunk.actions.shape == (4, n_envs, *actions.shape[1:])
    assert chunk.arrays["log_probs"].dtype == log_probs.numpy().dtype


@settings(deadline=None, max_examples=30)
@given(
    shape=st.sampled_from([(1,), (3,), (2, 3)]), log_std_init=st.floats(-5.0, 5.0), n_envs=n_envs_of_sampler, seed=seeds
)
def test_gaussian_action_is_the_deterministic_one_and_scaled_noise(
    shape: tuple[int, ...], log_std_init: float, n_envs: int, seed: int
) -> None:
    policy = build_policy(action_space=spaces.Box(-1.0, 1.0, shape), seed=seed, log_std_init=log_std_init)
    observations = sample(BOX, 5, n_envs)
    chunk = fill(build_actor(policy, n_envs, (seed, 1)), empty_chunk(policy, 5, n_envs), observations)

    with th.no_grad():
        means = policy._predict(flat(observations), deterministic=True).reshape(5, n_envs, -1).numpy()
        stds = policy.log_std.exp().numpy()
    stream = np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, 1))))
    noise = stream.standard_normal((5, means.shape[2], n_envs), dtype=np.float32).transpose(0, 2, 1)
    np.testing.assert_allclose(chunk.actions.reshape(means.shape), means + noise * stds, rtol=1e-5, atol=1e-5)


def test_gaussian_noise_is_standard_normal() -> None:
    policy = build_policy()
    observations = sample(BOX, 2000, 3)
    actions = fill(build_actor(policy, 3), empty_chunk(policy, 2000, 3), observations).actions
    with th.no_grad():
        means = policy._predict(flat(observations), deterministic=True).numpy().reshape(actions.shape)
        noise = (actions - means) / policy.log_std.exp().numpy()
    noise = noise.reshape(-1, 9)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(9), atol=0.12)
    np.testing.assert_allclose(noise.mean(axis=0), np.zeros(9), atol=0.12)
    np.testing.assert_allclose(np.quantile(noise, [0.025, 0.25, 0.75, 0.975]), [-1.96, -0.674, 0.674, 1.96], atol=0.05)


@pytest.mark.parametrize("log_std", [-40.0, -17.0, -8.0, 0.0, 8.0, 30.0])
def test_log_probs_are_of_the_float32_action_for_extreme_deviations(log_std: float) -> None:
    policy = build_policy(net_arch=[])
    with th.no_grad():
        policy.log_std.fill_(log_std)
        # The means are then the same numbers for both, in any order of summation.
        policy.action_net.weight.zero_()
    observations = sample(BOX, 20, 2)
    chunk = fill(build_actor(policy, 2), empty_chunk(policy, 20, 2), observations)
    np.testing.assert_allclose(
        chunk.arrays["log_probs"], evaluate(policy, observations, chunk.actions), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("action_space", "sizes"),
    [
        (spaces.Discrete(2), [2]),
        (spaces.Discrete(6), [6]),
        (spaces.MultiDiscrete([3, 1, 4]), [3, 1, 4]),
        (spaces.MultiBinary(3), [2, 2, 2]),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(action_space: spaces.Space, sizes: list[int], n_envs: int) -> None:
    policy = build_policy(action_space=action_space)
    with th.no_grad():
        policy.action_net.weight *= 0.2
    n_steps = 6000 // n_envs
    observation = sample(BOX, 1, 1)
    chunk = empty_chunk(policy, n_steps, n_envs)
    fill(build_actor(policy, n_envs), chunk, np.tile(observation, (n_steps, n_envs, 1)))

    outcomes = np.array(list(product(*map(range, sizes))))
    n_outcomes = len(outcomes)
    actions = outcomes.astype(chunk.actions.dtype).reshape(1, n_outcomes, *chunk.actions.shape[2:])
    log_probs = evaluate(policy, np.tile(observation, (1, n_outcomes, 1)), actions)[0]
    is_outcome = (chunk.actions.reshape(-1, 1, len(sizes)) == outcomes).all(axis=2)
    assert is_outcome.any(axis=1).all()
    np.testing.assert_allclose(
        chunk.arrays["log_probs"].reshape(-1), log_probs[is_outcome.argmax(axis=1)], rtol=1e-5, atol=1e-5
    )

    expected, counts = len(is_outcome) * np.exp(log_probs), is_outcome.sum(axis=0)
    np.testing.assert_allclose(expected.sum(), len(is_outcome), rtol=1e-5)
    assert expected.min() > 5.0
    # Chi-squared with k degrees of freedom has mean k and variance 2k: this is four standard deviations above.
    n_free = n_outcomes - 1
    assert ((counts - expected) ** 2 / expected).sum() < n_free + 4.0 * np.sqrt(2.0 * n_free)


@pytest.mark.parametrize(
    "action_space", [spaces.Discrete(4), spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3)], ids=str
)
def test_extreme_logits(action_space: spaces.Space) -> None:
    policy = build_policy(action_space=action_space)
    with th.no_grad():
        policy.action_net.weight *= 1e5
    observations = sample(BOX, 50, 2)
    chunk = fill(build_actor(policy, 2), empty_chunk(policy, 50, 2), observations)
    expected = evaluate(policy, observations, chunk.actions)
    np.testing.assert_allclose(chunk.arrays["log_probs"], expected, rtol=1e-4, atol=0.1)
    assert (expected > -60.0).all()


@pytest.mark.parametrize("action_space", ACTION_SPACES, ids=str)
def test_seed_decides_the_actions(action_space: spaces.Space) -> None:
    policy = build_policy(action_space=action_space)
    observations = sample(BOX, 40, 2)

    def actions(seed: int | tuple[int, ...]) -> np.ndarray:
        return fill(build_actor(policy, 2, seed), empty_chunk(policy, 40, 2), observations).actions

    np.testing.assert_array_equal(actions(5), actions(5))
    np.testing.assert_array_equal(actions((2**127, 5)), actions((2**127, 5)))
    assert not np.array_equal(actions(5), actions(6))
    assert not np.array_equal(actions((0, 5)), actions((1, 5)))


@pytest.mark.parametrize("action_space", ACTION_SPACES, ids=str)
def test_stream_continues_whether_chunks_are_full_short_or_abandoned(action_space: spaces.Space) -> None:
    policy = build_policy(action_space=action_space)
    observations = sample(BOX, 40, 2)

    def second_chunk(first_chunk: Callable[[NumPyActor], object]) -> tuple[np.ndarray, np.ndarray]:
        actor = build_actor(policy, 2)
        first_chunk(actor)
        chunk = fill(actor, empty_chunk(policy, 40, 2), observations)
        return chunk.actions, chunk.arrays["log_probs"]

    def filled(n_steps: int) -> Callable[[NumPyActor], object]:
        return lambda actor: fill(actor, empty_chunk(policy, 40, 2), observations, n_steps)

    def abandoned(actor: NumPyActor) -> None:
        actor.begin_chunk(empty_chunk(policy, 40, 2))
        actor.act(observations[0], 0)

    after_full = second_chunk(filled(40))
    for first_chunk in (filled(3), filled(0), abandoned):
        np.testing.assert_equal(second_chunk(first_chunk), after_full)
    first = fill(build_actor(policy, 2), empty_chunk(policy, 40, 2), observations)
    assert not np.array_equal(first.actions, after_full[0])


def test_short_chunk_keeps_the_rows_after_it() -> None:
    policy = build_policy()
    chunk = empty_chunk(policy, 6, 2)
    chunk.actions[...] = 7.0
    chunk.arrays["log_probs"][...] = 7.0
    observations = sample(BOX, 6, 2)
    fill(build_actor(policy, 2), chunk, observations, n_steps=4)
    np.testing.assert_allclose(
        chunk.arrays["log_probs"][:4], evaluate(policy, observations[:4], chunk.actions[:4]), rtol=1e-4, atol=1e-4
    )
    assert (chunk.actions[4:] == 7.0).all() and (chunk.arrays["log_probs"][4:] == 7.0).all()


def test_chunks_may_differ_in_capacity() -> None:
    policy = build_policy(action_space=spaces.MultiDiscrete([3, 2]))
    actor = build_actor(policy, 2)
    for n_steps in (3, 8, 1):
        observations = sample(BOX, n_steps, 2)
        chunk = fill(actor, empty_chunk(policy, n_steps, 2), observations)
        np.testing.assert_allclose(
            chunk.arrays["log_probs"], evaluate(policy, observations, chunk.actions), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("action_space", ACTION_SPACES, ids=str)
@pytest.mark.parametrize("when", ["before the chunk begins", "after it began"])
def test_new_weights_take_effect(action_space: spaces.Space, when: str) -> None:
    old, new = build_policy(action_space=action_space, seed=1), build_policy(action_space=action_space, seed=2)
    spec = export_numpy_actor(old, seed=0)
    actor = build_actor(old, 2)
    observations = sample(BOX, 10, 2)
    fill(actor, empty_chunk(old, 10, 2), observations)

    chunk = empty_chunk(new, 10, 2)
    if when == "before the chunk begins":
        load(actor, spec, new)
    actor.begin_chunk(chunk)
    if when == "after it began":
        load(actor, spec, new)
    for step in range(10):
        actor.act(observations[step], step)
    actor.end_chunk(observations[-1], 10)

    second = build_actor(new, 2)
    fill(second, empty_chunk(new, 10, 2), observations)
    np.testing.assert_array_equal(chunk.actions, fill(second, empty_chunk(new, 10, 2), observations).actions)
    np.testing.assert_allclose(
        chunk.arrays["log_probs"], evaluate(new, observations, chunk.actions), rtol=1e-4, atol=1e-4
    )


def test_bootstrap_records_nothing() -> None:
    policy = build_policy()
    actor, chunk = build_actor(policy, 2), empty_chunk(policy, 3, 2)
    actor.begin_chunk(chunk)
    before = {name: array.copy() for name, array in chunk.arrays.items()}
    actor.bootstrap(np.zeros(4), 0, 1)
    for name, array in chunk.arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_layers_of_a_policy_changed_by_hand() -> None:
    policy = build_policy(net_arch=[4], action_space=spaces.Discrete(3))
    tanh, linear = nn.Tanh(), nn.Linear(4, 4, bias=False)
    policy.mlp_extractor.policy_net = nn.Sequential(tanh, linear, tanh, nn.ELU(0.5), nn.Linear(4, 4), nn.Identity())
    policy.action_net = nn.Linear(4, 3, bias=False)
    assert why_not_numpy(policy) is None
    observations = sample(BOX, 10, 2)
    chunk = fill(build_actor(policy, 2), empty_chunk(policy, 10, 2), observations)
    np.testing.assert_allclose(
        chunk.arrays["log_probs"], evaluate(policy, observations, chunk.actions), rtol=1e-5, atol=1e-5
    )


def test_running_a_spec_imports_neither_torch_nor_sb3(tmp_path: Path) -> None:
    policy = build_policy(spaces.Dict(a=BOX, b=spaces.Discrete(3)), spaces.MultiDiscrete([2, 3]))
    spec = export_numpy_actor(policy, seed=0)
    state = policy.state_dict()
    weights = {name: state[name].numpy() for name in spec.weight_names}
    observations = row(sample(policy.observation_space, 1, 2), 0)
    (tmp_path / "spec.pickle").write_bytes(pickle.dumps((spec, weights, policy.observation_space, observations)))
    program = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    spec, weights, space, observations = pickle.load(file)
from sb3_walle.transport.chunk import Chunk, chunk_layout
layout = chunk_layout(4, 2, space, spec.fields(4, 2))
chunk = Chunk(layout.views(memoryview(bytearray(layout.nbytes))))
actor = spec.build(2)
actor.load_weights(weights)
actor.begin_chunk(chunk)
actor.act(observations, 0)
actor.end_chunk(observations, 1)
assert chunk.arrays["log_probs"][0].all()
print(sorted({"torch", "stable_baselines3"} & set(sys.modules)))
"""
    root = Path(numpy_actor.__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spec.pickle")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
