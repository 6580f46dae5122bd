"""A loss or a gradient that is not finite stops the update before the weights change, and the model stays usable."""

import copy
import gc
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO
from space_env import SpaceEnv
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_walle import NonFiniteError
from sb3_walle.updates.finite import finite_updates

BOX = spaces.Box(-1, 1, (3,), np.float32)
BAD = "there are NaN or infinite numbers in the gradients of"
ALGORITHMS: dict[str, tuple[type[OnPolicyAlgorithm], dict[str, Any]]] = {
    "PPO": (PPO, {"batch_size": 16, "n_epochs": 2}),
    "PPO with clipped values": (PPO, {"batch_size": 16, "n_epochs": 2, "clip_range_vf": 0.1, "target_kl": 0.01}),
    "A2C": (A2C, {}),
    "A2C with Adam": (A2C, {"use_rms_prop": False, "normalize_advantage": True}),
    "TRPO": (TRPO, {"batch_size": 16, "n_critic_updates": 2}),
}


class OneLayer(BaseFeaturesExtractor):
    """Subclasses do something with its one layer."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=4)
        self.layer = th.nn.Linear(3, 4)


class SteepRoot(OneLayer):
    """Computes finite features, but once ``is_steep`` is set, the slope of a root in it is infinite."""

    is_steep = False

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features = self.layer(observations)
        return observations.sum() + th.sqrt(0 * features) if self.is_steep else features


class Normalizing(OneLayer):
    """Notes what it sees in the forward pass, when there is no loss yet."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.normalization = th.nn.BatchNorm1d(4)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.normalization(self.layer(observations))


class ValuesOfAFunction(ActorCriticPolicy):
    """A policy whose values do not come from a module."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.critic: Any = self.value_net
        del self.value_net
        self.__dict__["value_net"] = lambda latent: self.critic(latent)


class Steps:
    """
    What each optimizer step of a model has led to, and the state before the first.

    :param model: the model to follow
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.states = [self.state()]
        model.policy.optimizer.register_step_post_hook(lambda *_: self.states.append(self.state()))

    def state(self) -> dict[str, Any]:
        policy = self._model.policy
        return copy.deepcopy({"policy": policy.state_dict(), "optimizer": policy.optimizer.state_dict()})

    def assert_kept(self, error: BaseException) -> None:
        """That the model is as its last step left it, and that the message counts the steps right."""
        assert f"before minibatch {len(self.states)} could change the weights" in str(error)
        assert_equal(self.state(), self.states[-1])
        assert_finite(self._model)


def assert_equal(found: Any, expected: Any) -> None:
    th.testing.assert_close(found, expected, rtol=0, atol=0)


def assert_finite(model: Any) -> None:
    assert all(tensor.isfinite().all() for tensor in model.policy.state_dict().values())


def prepared(algorithm: str, policy: Any = "MlpPolicy", action_space: spaces.Space = BOX, **settings: Any) -> Any:
    """A model that has trained once, and has another rollout in its buffer."""
    algorithm_class, own_settings = ALGORITHMS[algorithm]
    settings = {"n_steps": 64, "seed": 3, "device": "cpu", **own_settings, **settings}
    model: Any = algorithm_class(policy, SpaceEnv(BOX, action_space), **settings).learn(64)
    _, callback = model._setup_learn(64)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def with_extractor(extractor: type[OneLayer], algorithm: str) -> Any:
    return prepared(algorithm, policy_kwargs={"features_extractor_class": extractor})


def checked_train(model: Any, update: int = 2) -> None:
    with finite_updates(model.policy, update):
        model.train()


def assert_stopped(model: Any, reason: str) -> None:
    """That an update of a model is stopped for a reason, and leaves what the step before has led to."""
    steps = Steps(model)
    with pytest.raises(NonFiniteError, match=reason) as caught:
        checked_train(model)
    steps.assert_kept(caught.value)


@pytest.mark.parametrize(("array", "value"), [("advantages", np.nan), ("returns", np.inf), ("returns", -np.inf)])
@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "A2C with Adam"])
def test_what_is_not_finite_in_a_rollout_stops_its_minibatch(algorithm: str, array: str, value: float) -> None:
    model = prepared(algorithm)
    getattr(model.rollout_buffer, array)[5] = value
    assert_stopped(model, f"Update 2 was stopped before .*: {BAD} ")


def test_minibatches_before_it_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "permutation", np.arange)
    model = prepared("PPO")
    model.rollout_buffer.returns[-1] = np.inf
    steps = Steps(model)
    message = (
        f"Update 31 was stopped before minibatch 4 could change the weights: {BAD} mlp_extractor.value_net.0.weight, "
        "mlp_extractor.value_net.0.bias, mlp_extractor.value_net.2.weight and 3 more. The weights are those of the "
        "last good step: save the model. Before you continue, lower the learning rate, and check that "
    )
    with pytest.raises(NonFiniteError, match=re.escape(message)):
        checked_train(model, update=31)
    assert len(steps.states) == 4


def test_trpo_is_stopped_before_a_step_of_its_optimizer() -> None:
    """Its policy is updated by a line search, without an optimizer."""
    model = prepared("TRPO")
    model.rollout_buffer.returns[5] = np.inf
    steps = Steps(model)
    with pytest.raises(NonFiniteError, match=BAD):
        checked_train(model)
    assert_equal(steps.state()["optimizer"], steps.states[-1]["optimizer"])
    assert_finite(model)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "TRPO"])
def test_a_loss_that_overflows_is_found_though_its_gradients_are_finite(algorithm: str) -> None:
    model = prepared(algorithm)
    with th.no_grad():
        # In float32 the square of the error is infinite, twice the error is not.
        model.policy.value_net.bias.fill_(1e20)
    with pytest.raises(
        NonFiniteError, match="before minibatch 1 could change the weights: the norm of the gradients is infinite"
    ):
        checked_train(model)
    assert_finite(model)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_a_gradient_that_is_not_finite_is_found_and_named_though_the_loss_is_finite(algorithm: str) -> None:
    model = with_extractor(SteepRoot, algorithm)
    model.policy.features_extractor.is_steep = True
    names = "features_extractor.layer.weight, features_extractor.layer.bias"
    assert_stopped(model, rf"there are NaN or infinite numbers in the gradients of {names}\.")


def test_of_many_gradients_a_few_are_named() -> None:
    model = prepared("A2C")
    found = dict(model.policy.named_parameters())
    for parameter in found.values():
        parameter.register_hook(lambda gradient: gradient * np.inf)
    names = ", ".join(list(found)[:3])
    assert_stopped(model, rf"in the gradients of {names} and {len(found) - 3} more\.")


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_an_infinite_norm_of_finite_gradients_is_found_before_clipping_makes_them_zero(algorithm: str) -> None:
    model = prepared(algorithm)
    model.policy.action_net.bias.register_hook(lambda gradient: th.full_like(gradient, 1e30))
    assert_stopped(model, "the norm of the gradients is infinite, though each of them is finite")


def test_values_need_not_come_from_a_module() -> None:
    model = prepared("PPO", ValuesOfAFunction)
    model.rollout_buffer.returns[5] = np.inf
    assert_stopped(model, BAD)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_statistics_of_the_forward_pass_are_taken_back(algorithm: str) -> None:
    model = with_extractor(Normalizing, algorithm)
    model.rollout_buffer.returns[5] = np.inf
    assert_stopped(model, BAD)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "TRPO"])
def test_a_model_that_was_stopped_can_be_saved_and_trained_on(algorithm: str, tmp_path: Path) -> None:
    model = prepared(algorithm)
    good_returns = model.rollout_buffer.returns.copy()
    model.rollout_buffer.returns[:] = np.nan
    with pytest.raises(NonFiniteError):
        checked_train(model)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    assert_equal(Steps(loaded).state(), Steps(model).state())
    model.rollout_buffer.returns[:] = good_returns.reshape(model.rollout_buffer.returns.shape)
    steps = Steps(model)
    checked_train(model)
    assert len(steps.states) > 1
    model.learn(64)
    assert_finite(model)


@pytest.mark.parametrize(
    ("algorithm", "action_space"),
    [
        pytest.param(algorithm, (BOX, spaces.Discrete(3))[number % 2], id=algorithm)
        for number, algorithm in enumerate(ALGORITHMS)
    ],
)
def test_nothing_changes_where_all_is_finite(algorithm: str, action_space: spaces.Space) -> None:
    states, logged = [], []
    for train in (ALGORITHMS[algorithm][0].train, checked_train):
        model = prepared(algorithm, action_space=action_space)
        np.random.seed(0)
        steps = Steps(model)
        for _ in range(3):
            train(model)
        states.append(steps.states)
        logged.append({k: v for k, v in model.logger.name_to_value.items() if k.startswith("train/")})
    assert len(states[0]) > 2
    assert_equal(states[1], states[0])
    assert logged[0] == logged[1]


def interrupted(model: Any) -> None:
    with finite_updates(model.policy, 2):
        raise KeyboardInterrupt


@pytest.mark.parametrize("end", [checked_train, interrupted], ids=["the error", "Ctrl-C"])
def test_nothing_is_checked_after_an_update(end: Callable[[Any], None]) -> None:
    model = prepared("A2C")
    model.rollout_buffer.returns[5] = np.nan
    with pytest.raises((NonFiniteError, KeyboardInterrupt)):
        end(model)
    values = model.policy.predict_values(th.zeros(1, 3))
    assert type(values) is th.Tensor
    model.train()
    assert any(weights.isnan().any() for weights in model.policy.parameters())


def test_an_update_keeps_no_weights_alive() -> None:
    model = prepared("A2C")
    checked_train(model)
    weights = weakref.ref(model.policy.value_net.weight)
    del model
    gc.collect()
    assert weights() is None


def test_an_update_in_another_thread_is_another_update() -> None:
    bad, beside = prepared("PPO"), prepared("PPO")
    bad.rollout_buffer.returns[:] = np.nan
    with (
        pytest.raises(NonFiniteError, match=f"Update 1 was stopped before minibatch 1 could .*: {BAD}"),
        finite_updates(bad.policy, 1),
    ):
        thread = threading.Thread(target=checked_train, args=(beside,))
        thread.start()
        thread.join()
        bad.train()
    assert_finite(bad)


def test_two_models_train_in_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that cannot be trained does not disturb the other, nor does that one let it pass."""
    # NumPy's random numbers are the same for all threads.
    monkeypatch.setattr(np.random, "permutation", np.arange)
    alone, beside, bad = prepared("PPO"), prepared("PPO"), prepared("PPO")
    bad.rollout_buffer.returns[-1] = np.nan
    for update in range(5):
        checked_train(alone, update)
    start, messages = threading.Barrier(2), []

    def train_beside() -> None:
        start.wait()
        for update in range(5):
            checked_train(beside, update)

    def train_bad() -> None:
        start.wait()
        for update in range(5):
            with pytest.raises(NonFiniteError) as caught:
                checked_train(bad, update)
            messages.append(str(caught.value))

    threads = [threading.Thread(target=target) for target in (train_beside, train_bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal(Steps(beside).state(), Steps(alone).state())
    assert_finite(bad)
    what = f"was stopped before minibatch 4 could change the weights: {BAD}"
    expected = [f"Update {update} {what}" for update in range(5)]
    assert [message[: len(prefix)] for message, prefix in zip(messages, expected, strict=True)] == expected
