"""What PPO learns from experience of older policies: the decoupled objective and V-trace, only where there is a lag."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from space_env import SpaceEnv
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle import AsyncOnPolicyMixin, AsyncPPO
from sb3_walle.on_policy import policy_lag
from sb3_walle.on_policy.policy_lag import MAX_IMPORTANCE_WEIGHT, correct_for_policy_lag, log_probs_of

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
        behaviour = buffer.log_probs.copy()
        super()._correct_for_policy_lag()
        np.testing.assert_allclose(buffer.log_probs, self.log_probs(), atol=1e-5)
        weights = np.minimum(np.exp(buffer.log_probs - behaviour), MAX_IMPORTANCE_WEIGHT)
        # What V-trace makes of them is tested below.
        weighted = buffer.returns - buffer.values
        mean = weighted.sum() / weights.sum() if self.normalize_advantage else 0.0
        np.testing.assert_allclose(buffer.advantages, weighted - weights * mean, rtol=1e-4, atol=1e-5)
        assert buffer.log_probs.dtype == buffer.advantages.dtype == buffer.returns.dtype == np.float32
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


N_STEPS, N_ENVS = 20, 3
GAMMA, GAE_LAMBDA = 0.9, 0.8


def buffer_of_old_actions(
    seed: int = 0, buffer_class: type[RolloutBuffer] = RolloutBuffer
) -> tuple[RolloutBuffer, np.ndarray]:
    """A complete rollout of random numbers, and the values of what came after each row but for the end of episodes."""
    random = np.random.default_rng(seed)
    buffer = buffer_class(N_STEPS, BOX, BOX, "cpu", GAE_LAMBDA, GAMMA, N_ENVS)
    for array in (buffer.rewards, buffer.values, buffer.log_probs):
        array[:] = random.normal(size=array.shape)
    buffer.episode_starts[:] = random.random(buffer.episode_starts.shape) < 0.2
    last_values, dones = random.normal(size=N_ENVS).astype(np.float32), random.random(N_ENVS) < 0.5
    buffer.compute_returns_and_advantage(th.from_numpy(last_values), dones)
    next_values = np.vstack([buffer.values[1:], last_values])
    next_values[np.vstack([buffer.episode_starts[1:] == 1, dones])] = 0
    return buffer, next_values


def correct(
    buffer: RolloutBuffer, log_probs: np.ndarray, monkeypatch: pytest.MonkeyPatch, normalizes_advantages: bool = False
) -> np.ndarray:
    """Correct for a policy that has given these log-probabilities to the actions. Returns the importance weights."""
    with np.errstate(over="ignore"):
        weights = np.minimum(np.exp(log_probs - buffer.log_probs), MAX_IMPORTANCE_WEIGHT)
    monkeypatch.setattr(policy_lag, "log_probs_of", lambda *_: log_probs.astype(np.float32))
    policy: Any = None
    correct_for_policy_lag(buffer, policy, normalizes_advantages)
    return weights


def random_log_probs(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_STEPS, N_ENVS)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_returns_are_those_of_v_trace(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As equation 1 of the paper has them, a sum for each step of its own."""
    buffer, next_values = buffer_of_old_actions(seed)
    weights = correct(buffer, random_log_probs(seed + 1), monkeypatch)
    errors = weights * (buffer.rewards + GAMMA * next_values - buffer.values)
    for step, env in np.ndindex(N_STEPS, N_ENVS):
        expected, factor = buffer.values[step, env], 1.0
        for later in range(step, N_STEPS):
            if later > step and buffer.episode_starts[later, env]:
                break
            expected += factor * errors[later, env]
            factor *= GAMMA * GAE_LAMBDA * weights[later, env]
        np.testing.assert_allclose(buffer.returns[step, env], expected, rtol=1e-4, atol=1e-5)
    # The weight of an advantage is that of the objective: it is not part of the estimate.
    np.testing.assert_allclose(buffer.advantages, buffer.returns - buffer.values, rtol=1e-4, atol=1e-5)


def test_estimates_of_the_present_policy_are_those_of_gae(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, _ = buffer_of_old_actions()
    advantages, returns = buffer.advantages.copy(), buffer.returns.copy()
    correct(buffer, buffer.log_probs.copy(), monkeypatch)
    np.testing.assert_allclose(buffer.advantages, advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buffer.returns, returns, rtol=1e-5, atol=1e-6)


def test_a_step_that_the_policy_would_not_take_hides_what_came_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for later_reward in (0.0, 100.0):
        buffer, _ = buffer_of_old_actions()
        buffer.episode_starts[1:] = 0
        buffer.rewards[12] += later_reward
        buffer.compute_returns_and_advantage(th.zeros(N_ENVS), np.ones(N_ENVS))
        log_probs = buffer.log_probs.copy()
        log_probs[10] = -1e4
        correct(buffer, log_probs, monkeypatch)
        np.testing.assert_allclose(buffer.returns[10], buffer.values[10])
        np.testing.assert_array_equal(buffer.advantages[10], 0.0)
        found.append((buffer.advantages[:10], buffer.advantages[11:13]))
    (before, after), (before_too, after_too) = found
    np.testing.assert_allclose(before, before_too, atol=1e-4)
    assert (after_too > after + 50).all()


def test_estimates_of_a_buffer_of_another_class_are_only_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(RolloutBuffer):
        """May estimate advantages in a way of its own."""

    buffer, _ = buffer_of_old_actions(buffer_class=Other)
    advantages, returns = buffer.advantages.copy(), buffer.returns.copy()
    weights = correct(buffer, random_log_probs(), monkeypatch)
    np.testing.assert_allclose(buffer.advantages, weights * advantages)
    np.testing.assert_array_equal(buffer.returns, returns)


@pytest.mark.parametrize("buffer_class", [RolloutBuffer, type("Other", (RolloutBuffer,), {})])
@pytest.mark.parametrize("shift", [5.0, -100.0])
def test_a_constant_in_all_advantages_makes_no_action_more_likely(
    shift: float, buffer_class: type[RolloutBuffer], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for constant in (0.0, shift):
        buffer, _ = buffer_of_old_actions(buffer_class=buffer_class)
        # Episodes of one step: no trace makes something else of the constant.
        buffer.episode_starts[:] = 1
        buffer.advantages += np.float32(constant)
        correct(buffer, random_log_probs(), monkeypatch, normalizes_advantages=True)
        # So there is no mean left that the update would subtract.
        assert abs(buffer.advantages.mean()) < 1e-4
        found.append(buffer.advantages)
    np.testing.assert_allclose(*found, atol=1e-4)


def test_a_policy_that_has_left_all_that_was_done_learns_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, _ = buffer_of_old_actions()
    correct(buffer, np.full((N_STEPS, N_ENVS), -np.inf), monkeypatch, normalizes_advantages=True)
    np.testing.assert_array_equal(buffer.advantages, 0.0)
    np.testing.assert_array_equal(buffer.returns, buffer.values)


def test_an_action_that_the_policy_has_left_far_behind_spoils_no_update() -> None:
    """Its probability changes by any factor within an update: a ratio to it is infinite, and 0 times that is NaN."""
    model = PPO("MlpPolicy", SpaceEnv(BOX, BOX), n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=0).learn(32)
    buffer, policy = model.rollout_buffer, model.policy
    model.collect_rollouts(model.env, model._init_callback(None), buffer, 32)
    with th.no_grad():
        policy.log_std.fill_(-5)
        policy.action_net.bias.fill_(3)
    correct_for_policy_lag(buffer, policy, normalizes_advantages=True)
    with th.no_grad():
        policy.action_net.bias.fill_(1)
    model.train()
    assert all(parameter.isfinite().all() for parameter in policy.parameters())


def test_weights_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, _ = buffer_of_old_actions()
    advantages = buffer.advantages.copy()
    correct(buffer, np.full((N_STEPS, N_ENVS), 1e4), monkeypatch)
    np.testing.assert_allclose(buffer.advantages, MAX_IMPORTANCE_WEIGHT * advantages, rtol=1e-5, atol=1e-6)


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
