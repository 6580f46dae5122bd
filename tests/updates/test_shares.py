"""Minibatches divided among learners: the numbers of one learner, within rounding."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import QRDQN, TQC
from shared_updates import SharedUpdates, state_of
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from test_off_policy_updates import DICTIONARY as REPLAY_DICTIONARY
from test_off_policy_updates import made as made_off_policy
from test_same_numbers import IMAGE, freeze
from test_trpo_update import made as made_trpo
from update_pairs import BATCH_NORM, BOX, VECTOR, assert_close, made, share_rollout

from sb3_walle import PrioritizedReplayBuffer
from sb3_walle.updates.division import divide
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.shares import Shares
from sb3_walle.updates.traced_step import trace_update
from sb3_walle.updates.unsupported import Unsupported

# Relative to the largest number of a tensor.
TOLERANCE = 1e-5
# With three learners, shares overlap.
UNEVEN = 3


@given(st.integers(1, 200), st.integers(1, 70))
def test_every_row_counts_once(n_rows: int, n_learners: int) -> None:
    shares = Shares(n_rows, n_learners)
    counts, order = np.zeros(n_rows), []
    for start, n_repeated, weights in zip(shares.starts, shares.n_repeated, shares.weights(), strict=True):
        rows = np.arange(start, start + shares.size)
        assert start >= 0 and rows[-1] < n_rows
        counts[rows] += weights
        order += list(rows[n_repeated:])
    np.testing.assert_allclose(counts, 1 / n_rows)
    assert order == list(range(n_rows))
    assert shares.size == -(-n_rows // n_learners)


PPO_CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "continuous": ((), {}),
    "discrete, all is clipped, truncated last minibatch": (
        ("MlpPolicy", VECTOR, spaces.Discrete(3)),
        {"clip_range_vf": 0.1, "max_grad_norm": 0.01, "batch_size": 10},
    ),
    "gSDE, advantages as they are": ((), {"use_sde": True, "normalize_advantage": False, "ent_coef": 0.1}),
    "dictionaries with images": (
        ("MultiInputPolicy", spaces.Dict({"image": IMAGE, "place": VECTOR}), BOX),
        {"policy_kwargs": {"features_extractor_kwargs": {"cnn_output_dim": 8}}},
    ),
}


def assert_same(one: SharedUpdates, other: SharedUpdates, tolerance: float = TOLERANCE) -> None:
    expected, found = state_of(one.update), state_of(other.update)
    # Whatever the policy computes with, the share of clipped ratios is a mean in single precision.
    for name in expected:
        assert_close(found[name], expected[name], max(tolerance, 1e-6) if name == "logged" else tolerance, name)


@pytest.mark.parametrize("name, n_learners", [*((name, UNEVEN) for name in PPO_CASES), ("continuous", 1)])
def test_ppo_has_the_numbers_of_one_learner(name: str, n_learners: int) -> None:
    arguments, settings = PPO_CASES[name]
    one, several = (SharedUpdates(made(*arguments, **settings), n) for n in (0, n_learners))
    for number in (1, 2):
        share_rollout(one.model, several.model)
        one.train(number)
        assert several.train(number, is_compared=True)
        assert_same(one, several)


def test_ppo_stops_at_the_same_minibatch() -> None:
    """The divergence that counts is that of the whole minibatch, before the step."""
    settings = {"target_kl": 0.01, "learning_rate": 1e-2, "n_epochs": 10}
    one, several = (SharedUpdates(made(**settings), n) for n in (0, 2))
    share_rollout(one.model, several.model)
    one.train()
    several.train()
    assert 1 < one.n_minibatches < 30
    assert several.n_minibatches == one.n_minibatches
    assert_same(one, several)


class DoubleExtractor(FlattenExtractor):
    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).double()


class DoublePolicy(ActorCriticPolicy):
    """Computes in double precision."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, features_extractor_class=DoubleExtractor)
        self.double()


@pytest.mark.parametrize(
    "policy, tolerance, n_learners", [("MlpPolicy", 1e-5, 2), (DoublePolicy, 1e-11, UNEVEN)], ids=["single", "double"]
)
def test_numbers_are_the_same_after_hundreds_of_minibatches(policy: Any, tolerance: float, n_learners: int) -> None:
    settings = {"n_epochs": 46, "clip_range_vf": 0.2, "batch_size": 7, "policy_kwargs": {"net_arch": [4]}}
    one, several = (SharedUpdates(made(policy, **settings), n) for n in (0, n_learners))
    share_rollout(one.model, several.model)
    one.train()
    several.train()
    assert several.n_minibatches == one.n_minibatches > 320
    assert_same(one, several, tolerance)


def test_frozen_parameters_are_seen_by_all() -> None:
    models = [made(), made()]
    for model in models:
        freeze(model)
    one, several = (SharedUpdates(model, n) for model, n in zip(models, (0, 2), strict=True))
    share_rollout(one.model, several.model)
    with th.no_grad():
        for model in models:
            # Between updates, the user may change anything.
            for parameter in model.policy.parameters():
                parameter.mul_(1.5)
    one.train()
    several.train()
    assert_same(one, several)


OFF_POLICY_CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SAC": (SAC, {}),
    "SAC with a fixed coefficient, dictionaries": (SAC, {"ent_coef": 0.1, "space": REPLAY_DICTIONARY}),
    "TQC": (TQC, {}),
    "TD3": (TD3, {}),
    "DQN": (DQN, {"max_grad_norm": 0.01}),
    "QR-DQN": (QRDQN, {}),
    "DQN, prioritised replay": (DQN, {"replay_buffer_class": PrioritizedReplayBuffer}),
}


@pytest.mark.parametrize("name", OFF_POLICY_CASES)
def test_off_policy_algorithms_have_the_numbers_of_one_learner(name: str) -> None:
    algorithm, settings = OFF_POLICY_CASES[name]
    one, several = (SharedUpdates(made_off_policy(algorithm, **settings), n) for n in (0, UNEVEN))
    for updates in (one, several):
        updates.update.expect(5)
        for number in (1, 2):
            updates.train(number, is_compared=number == 1)
    assert_same(one, several)
    if "prioritised" in name:
        buffers = [updates.update.buffer for updates in (one, several)]
        np.testing.assert_allclose(*(buffer.priorities for buffer in buffers), rtol=TOLERANCE)


def test_the_critic_of_trpo_has_the_numbers_of_one_learner() -> None:
    one, several = (SharedUpdates(made_trpo("MlpPolicy", VECTOR, BOX), n) for n in (0, UNEVEN))
    for updates in (one, several):
        updates.train()
    assert_same(one, several)


def test_batch_normalization_is_not_divided() -> None:
    model = made(policy_kwargs=BATCH_NORM)
    update = PPOUpdate(model)
    with pytest.raises(Unsupported, match="batch normalization"):
        divide(update, trace_update(update, update.make_groups()), 2)


class SummingPolicy(ActorCriticPolicy):
    """Adds to the features of a sample those of the samples before it."""

    def extract_features(self, *args: Any, **kwargs: Any) -> Any:
        features: Any = super().extract_features(*args, **kwargs)
        return features.cumsum(dim=0)


def test_a_policy_that_mixes_samples_is_found_out() -> None:
    updates = SharedUpdates(made(SummingPolicy), 2)
    before = copy.deepcopy(state_of(updates.update))
    with pytest.raises(Unsupported, match="computes something else"):
        updates.train(is_compared=True)
    after = state_of(updates.update)
    for name in ("policy", "optimizers", "n_updates"):
        assert_close(after[name], before[name], 0.0, name)
