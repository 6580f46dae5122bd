"""What PPO learns from experience of older policies: the decoupled objective, only where there is a lag."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from space_env import SpaceEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle import AsyncOnPolicyMixin, AsyncPPO
from sb3_walle.on_policy import policy_lag
from sb3_walle.on_policy.policy_lag import MAX_IMPORTANCE_WEIGHT, log_probs_of

SETTINGS: dict[str, Any] = {"n_steps": 40, "batch_size": 20, "n_epochs": 4, "seed": 3, "device": "cpu"}
BOX = spaces.Box(-1, 1, (3,), np.float32)
SPACES: dict[str, tuple[str, spaces.Space, spaces.Space]] = {
    "continuous": ("MlpPolicy", BOX, spaces.Box(-1, 1, (2, 2), np.float32)),
    "discrete": ("MlpPolicy", BOX, spaces.Discrete(3)),
    "several discrete": ("MultiInputPolicy", spaces.Dict({"a": BOX, "b": BOX}), spaces.MultiDiscrete([2, 3])),
    "bits": ("MlpPolicy", BOX, spaces.MultiBinary(3)),
    "images": ("CnnPolicy", spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Discrete(2)),
}


class Watched(AsyncPPO):
    """Compares the rollout buffer before and after it was prepared for an update."""

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        self.weights: list[np.ndarray] = []
        return super().learn(*args, **kwargs)

    def _correct_for_policy_lag(self) -> None:
        buffer = self.rollout_buffer
        behaviour, advantages = buffer.log_probs.copy(), buffer.advantages.copy()
        super()._correct_for_policy_lag()
        np.testing.assert_allclose(buffer.log_probs, self.log_probs(), atol=1e-5)
        weights = np.minimum(np.exp(buffer.log_probs - behaviour), MAX_IMPORTANCE_WEIGHT)
        mean = np.average(advantages, weights=weights) if self.normalize_advantage else 0.0
        np.testing.assert_allclose(buffer.advantages, weights * (advantages - mean), rtol=1e-4, atol=1e-6)
        assert buffer.log_probs.dtype == buffer.advantages.dtype == np.float32
        self.weights.append(weights)

    def log_probs(self) -> np.ndarray:
        """As SB3's ``train()`` computes them, one row after the other."""
        buffer, rows = self.rollout_buffer, []
        for step in range(buffer.buffer_size):
            observations = buffer.observations
            row = (
                {k: v[step] for k, v in observations.items()} if isinstance(observations, dict) else observations[step]
            )
            actions = th.as_tensor(buffer.actions[step], dtype=th.float32)
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.long().flatten()
            with th.no_grad():
                rows.append(self.policy.evaluate_actions(obs_as_tensor(row, "cpu"), actions)[1].numpy())
        return np.stack(rows)


def watched(name: str, n_rollouts: int, **arguments: Any) -> Watched:
    policy, observation_space, action_space = SPACES[name]
    settings = {**SETTINGS, "n_samplers": 2, "backend": "inline", **arguments}
    model = Watched(policy, lambda: SpaceEnv(observation_space, action_space), **settings)
    return model.learn(n_rollouts * 40 * model.n_envs)


@pytest.mark.parametrize("normalize_advantage", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_the_ratio_is_to_the_policy_before_the_update_and_advantages_are_weighted(
    name: str, normalize_advantage: bool
) -> None:
    model = watched(name, n_rollouts=4, learning_rate=0.01, normalize_advantage=normalize_advantage)
    assert len(model.weights) == 3
    assert all(weights.std() > 0.01 for weights in model.weights)


def test_nothing_is_changed_without_a_policy_lag() -> None:
    assert watched("continuous", n_rollouts=3, mode="sync").weights == []
    # The first rollout of all is of the policy as it is.
    assert watched("continuous", n_rollouts=1).weights == []


def test_actions_of_the_present_policy_keep_their_weight() -> None:
    """If updates change nothing, a policy lag does not matter."""
    model = watched("continuous", n_rollouts=3, learning_rate=0.0)
    for weights in model.weights:
        np.testing.assert_allclose(weights, 1, atol=1e-4)


def test_in_free_mode_only_what_is_old_is_weighted() -> None:
    model = watched("discrete", n_rollouts=6, mode="free", learning_rate=0.01, backend="process")
    model.env.close()
    for weights in model.weights:
        assert (weights <= MAX_IMPORTANCE_WEIGHT).all() and (weights > 0).all()


class BufferOfOldActions:
    """What :func:`decouple` needs of a rollout buffer."""

    def __init__(self, advantages: np.ndarray, log_probs: np.ndarray) -> None:
        self.advantages, self.log_probs = advantages, log_probs


@pytest.mark.parametrize("constant", [5.0, -100.0])
def test_a_constant_in_all_advantages_makes_no_action_more_likely(
    constant: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    advantages, old, new = (random.normal(size=(20, 3)).astype(np.float32) for _ in range(3))
    monkeypatch.setattr(policy_lag, "log_probs_of", lambda buffer, policy: new.copy())
    found = []
    for shift in (0.0, constant):
        buffer: Any = BufferOfOldActions(advantages + np.float32(shift), old.copy())
        policy_lag.decouple(buffer, None, normalizes_advantages=True)
        # So there is no mean left that the update would subtract.
        assert abs(buffer.advantages.mean()) < 1e-4
        found.append(buffer.advantages)
    np.testing.assert_allclose(*found, atol=1e-4)


def test_a_policy_that_has_left_all_that_was_done_learns_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer: Any = BufferOfOldActions(np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32))
    monkeypatch.setattr(policy_lag, "log_probs_of", lambda buffer, policy: np.full((2, 3), -np.inf, np.float32))
    policy_lag.decouple(buffer, None, normalizes_advantages=True)
    np.testing.assert_array_equal(buffer.advantages, 0.0)


def test_weights_are_limited() -> None:
    model = watched("continuous", n_rollouts=1)
    model.rollout_buffer.reset()
    model.learn(40 * model.n_envs)
    buffer = model.rollout_buffer
    buffer.generator_ready = False
    shape = (buffer.buffer_size, buffer.n_envs)
    for attribute in ("observations", "actions", "log_probs", "advantages"):
        array = getattr(buffer, attribute)
        setattr(buffer, attribute, array.reshape(shape[1], shape[0], *array.shape[1:]).swapaxes(0, 1))
    buffer.log_probs, buffer.advantages = np.full(shape, -1e4, np.float32), np.ones(shape, np.float32)
    policy_lag.decouple(buffer, model.policy, normalizes_advantages=False)
    np.testing.assert_array_equal(buffer.advantages, MAX_IMPORTANCE_WEIGHT)


def test_log_probabilities_do_not_depend_on_how_many_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce(AsyncPPO):
        def _correct_for_policy_lag(self) -> None:
            expected = log_probs_of(self.rollout_buffer, self.policy)
            for samples in (1, 7, 40, 10_000):
                monkeypatch.setattr(policy_lag, "SAMPLES_AT_ONCE", samples)
                np.testing.assert_allclose(log_probs_of(self.rollout_buffer, self.policy), expected, atol=1e-6)
            self.compared = True

    _, observation_space, action_space = SPACES["continuous"]
    make_env = lambda: SpaceEnv(observation_space, action_space)  # noqa: E731
    model = AtOnce("MlpPolicy", make_env, n_samplers=3, backend="inline", **SETTINGS).learn(2 * 40 * 3)
    assert model.compared


def test_a_rollout_can_be_trained_on_again() -> None:
    _, observation_space, action_space = SPACES["continuous"]
    make_env = lambda: SpaceEnv(observation_space, action_space)  # noqa: E731
    model = AsyncPPO("MlpPolicy", make_env, n_samplers=2, backend="inline", **SETTINGS).learn(3 * 40 * 2)
    advantages = model.rollout_buffer.advantages.copy()
    model.train()
    np.testing.assert_array_equal(model.rollout_buffer.advantages, advantages)


def test_other_environments_in_a_callback_do_not_hide_the_lag_of_a_rollout() -> None:
    class SetEnv(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            _, observation_space, action_space = SPACES["continuous"]
            self.model.set_env(lambda: SpaceEnv(observation_space, action_space))

    _, observation_space, action_space = SPACES["continuous"]
    make_env = lambda: SpaceEnv(observation_space, action_space)  # noqa: E731
    model = Watched("MlpPolicy", make_env, n_samplers=2, backend="inline", **SETTINGS)
    model.learn(2 * 40 * 2)
    model.learn(3 * 40 * 2, callback=SetEnv())
    # Each rollout is the first of new samplers.
    assert model.weights == []


class Plain(AsyncOnPolicyMixin, PPO):
    """PPO without what makes up for a policy lag."""


def test_an_algorithm_that_does_not_make_up_for_a_lag_has_none() -> None:
    with pytest.raises(ValueError, match="Plain cannot learn in mode='pipelined'"):
        Plain("MlpPolicy", "CartPole-v1", n_samplers=1, mode="pipelined")
    assert Plain("MlpPolicy", "CartPole-v1", n_samplers=1, backend="inline").mode == "sync"
