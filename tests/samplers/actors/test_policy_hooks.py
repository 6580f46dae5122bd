"""Hooks on a policy: those that decide its actions are where these are chosen, and all others stay with the learner."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from oracle import assert_same_policies
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from toy_envs import RandomWalk
from watching import TorchHistory, WatchCallback

from sb3_walle import AsyncPPO, AsyncSAC
from sb3_walle.samplers.actors.torch_policy import dump_policy, load_policy, staying_hooks

PPO_SETTINGS: dict[str, Any] = {"n_steps": 40, "batch_size": 20, "n_epochs": 2}
SAC_SETTINGS: dict[str, Any] = {"buffer_size": 500, "learning_starts": 10, "batch_size": 8}
PAIRS = {"PPO": (PPO, AsyncPPO, PPO_SETTINGS), "SAC": (SAC, AsyncSAC, SAC_SETTINGS)}
COMMON: dict[str, Any] = {"seed": 3, "device": "cpu"}
AS_IN_SB3: dict[str, Any] = {"n_samplers": 1, "mode": "sync", "actor": "torch", "learner": "eager"}
N_STEPS = 80


def oracle(name: str) -> Any:
    algorithm, _, settings = PAIRS[name]
    return algorithm("MlpPolicy", RandomWalk(), policy_kwargs={"net_arch": [8]}, **settings, **COMMON)


def ours(name: str, **arguments: Any) -> Any:
    _, algorithm, settings = PAIRS[name]
    arguments = {"backend": "inline", "on_failure": "raise", **arguments}
    return algorithm("MlpPolicy", RandomWalk, **arguments, policy_kwargs={"net_arch": [8]}, **settings, **COMMON)


def acting_layer(model: Any) -> th.nn.Module:
    """The last layer before an action."""
    return model.policy.action_net if isinstance(model, PPO) else model.policy.actor.mu


class OnTrainingStart(BaseCallback):
    """
    Does something to the model when training starts.

    :param action: takes the model
    """

    def __init__(self, action: Callable[[Any], Any]) -> None:
        super().__init__()
        self._action = action

    def _on_training_start(self) -> None:
        self._action(self.model)

    def _on_step(self) -> bool:
        return True


# Hooks that watch


@pytest.mark.parametrize(("name", "backend"), [("PPO", "process"), ("SAC", "inline")])
def test_gradients_and_parameters_are_logged_as_in_sb3(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of it reaches samplers, where it would fail."""
    logs, models = [], []
    for build in (lambda: oracle(name), lambda: ours(name, backend=backend, **AS_IN_SB3)):
        monkeypatch.setattr(TorchHistory, "log", [])
        models.append(build().learn(N_STEPS, callback=WatchCallback(5)))
        logs.append(TorchHistory.log)
    models[1].env.close()
    assert_same_policies(*models)
    assert logs[0] == logs[1] and any(key.startswith("gradients/") for key, _ in logs[1])
    # SB3's off-policy algorithms call a part of the policy only.
    assert any(key.startswith("parameters/") for key, _ in logs[1]) == (name == "PPO")


@pytest.mark.parametrize("name", PAIRS)
def test_hooks_that_watch_force_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Several samplers, pipelined, in NumPy; and a line says why the update is eager."""
    model = ours(name, n_samplers=2, actor="numpy", backend="process", learner="compiled", verbose=1)
    with model, warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(N_STEPS, callback=WatchCallback(5))
        assert model._experience.collector.samplers.n_restarts == 0
    assert "actor: numpy" in (output := capsys.readouterr().out)
    assert output.count("Updates are not compiled: there are hooks") == 1


def backward_hook(model: Any, note: Callable[[], None]) -> None:
    acting_layer(model).register_full_backward_hook(lambda *_: note())


def gradient_hook(model: Any, note: Callable[[], None]) -> None:
    acting_layer(model).weight.register_hook(lambda _: note())  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("register", [backward_hook, gradient_hook])
def test_hooks_on_gradients_may_hold_anything_and_come_at_any_time(name: str, register: Any) -> None:
    lock, called = threading.Lock(), []

    def note() -> None:
        with lock:
            called.append(None)

    model = ours(name, n_samplers=2, learner="compiled")
    with model:
        model.learn(N_STEPS, callback=OnTrainingStart(lambda model: register(model, note)))
        # Of PPO, SB3 counts epochs, here of four minibatches.
        assert len(called) == model._n_updates * (4 if name == "PPO" else 1) > 0


def test_a_trial_shows_hooks_themselves_nothing() -> None:
    model = ours("PPO", n_samplers=1)
    shown: list[Any] = []
    handle = model.policy.register_forward_hook(lambda *arguments: shown.append(arguments))
    random_state = th.get_rng_state()
    assert staying_hooks(model.policy) == {handle.id} and shown == []
    assert th.equal(th.get_rng_state(), random_state)
    handle.remove()
    assert staying_hooks(model.policy) == set()


def test_a_hook_that_does_not_pickle_stays_with_a_warning() -> None:
    lock, called = threading.Lock(), []

    def hook(*_: Any) -> None:
        with lock:
            called.append(None)

    model = ours("PPO", n_samplers=2, actor="torch")
    model.policy.value_net.register_forward_hook(hook)
    with (
        model,
        pytest.warns(UserWarning, match="forward hook cannot be moved to samplers.*hook.* on value_net") as found,
    ):
        model.learn(N_STEPS)
    assert len(found) == 1 and len(called) > 0


# Hooks that change something


def halves(module: th.nn.Module, inputs: Any, output: th.Tensor) -> th.Tensor:
    return output / 2


def halves_in_place(module: th.nn.Module, inputs: Any, output: th.Tensor) -> None:
    output.mul_(0.5)


def halves_input(module: th.nn.Module, inputs: tuple[th.Tensor]) -> tuple[th.Tensor]:
    return (inputs[0] / 2,)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "forward hook": lambda model: acting_layer(model).register_forward_hook(halves),
    "in place": lambda model: acting_layer(model).register_forward_hook(halves_in_place),
    "forward pre-hook": lambda model: acting_layer(model).register_forward_pre_hook(halves_input),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_hooks_that_change_something_travel(name: str, change: Callable[[Any], Any]) -> None:
    models = []
    # Each is trained where it is built: they share the global random streams, which are seeded there.
    for build in (lambda: oracle(name), lambda: ours(name, **AS_IN_SB3)):
        models.append(build())
        change(models[-1])
        models[-1].learn(N_STEPS)
    assert_same_policies(*models)
    (hook,) = (*acting_layer(models[1])._forward_hooks, *acting_layer(models[1])._forward_pre_hooks)
    moved = load_policy(dump_policy(models[1].policy))
    assert any(hook in (*module._forward_hooks, *module._forward_pre_hooks) for module in moved.modules())


@pytest.mark.parametrize("name", PAIRS)
def test_hooks_that_change_something_may_come_when_training_starts(name: str) -> None:
    models = []
    for build in (lambda: oracle(name), lambda: ours(name, **AS_IN_SB3)):
        models.append(build().learn(N_STEPS, callback=OnTrainingStart(CHANGES["forward hook"])))
    assert_same_policies(*models)


@pytest.mark.parametrize("name", PAIRS)
def test_hooks_that_change_something_need_torch(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ours(name, n_samplers=2, verbose=1) as model:
        CHANGES["forward hook"](model)
        model.learn(N_STEPS)
    assert "actor: torch" in capsys.readouterr().out
    model = ours(name, n_samplers=2, actor="numpy")
    CHANGES["forward hook"](model)
    with pytest.raises(ValueError, match="a forward hook is registered on"):
        model.learn(N_STEPS)
