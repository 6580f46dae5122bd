"""Updates that have to stay eager are recognised, and tell why. To find out leaves no trace."""

import copy
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from native_helpers import trace_ppo
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from update_pairs import BATCH_NORM, VECTOR, LinearExtractor, TracedUpdates, extractor, made, state_of

from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.unsupported import MAX_LENGTH, Unsupported, in_short


def what_decides(model: PPO) -> Hashable:
    return PPOUpdate(model).key()


class DependsOnValues(LinearExtractor):
    """Does what observations tell."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features = super().forward(observations)
        return features if observations.sum() > 0 else -features


class RefusesZeros(LinearExtractor):
    """Checks what it is given."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        if not observations.any():
            raise ValueError("nothing to see")
        return super().forward(observations)


class NotToBeCopied(LinearExtractor):
    """Has something to itself."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there can be only one")


class Noisy(LinearExtractor):
    """Draws random numbers in any mode."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations) + th.randn(5)


class NoisyFromOutside(LinearExtractor):
    """Draws random numbers that torch knows nothing of."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations) + float(np.random.normal())


class MixedPolicy(ActorCriticPolicy):
    """Has a critic in double precision."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.value_net.double()

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        distribution = self.get_distribution(obs)
        values = self.value_net(self.mlp_extractor.forward_critic(obs).double()).float()
        return values, distribution.log_prob(actions), distribution.entropy()

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions = self.get_distribution(obs).get_actions(deterministic=deterministic)
        values, log_prob, _ = self.evaluate_actions(obs, actions)
        return actions, values, log_prob

    def predict_values(self, obs: Any) -> th.Tensor:
        return self.value_net(self.mlp_extractor.forward_critic(obs).double()).float()


class OwnBuffer(RolloutBuffer):
    """A buffer class of a user's own."""


def with_extractor(features_extractor_class: type) -> dict[str, Any]:
    return {"policy_kwargs": {"features_extractor_class": features_extractor_class}}


def with_optimizer(optimizer_class: Any) -> dict[str, Any]:
    return {"policy_kwargs": {"optimizer_class": optimizer_class}}


class OwnAdam(th.optim.Adam):
    """May do anything."""


def split_parameters(model: PPO) -> None:
    first, *others = model.policy.parameters()
    model.policy.optimizer = th.optim.Adam([{"params": [first]}, {"params": others}])


def leave_one_out(model: PPO) -> None:
    model.policy.optimizer = th.optim.Adam(list(model.policy.parameters())[1:])


def nothing(model: PPO) -> None:
    """Leave a model as it is."""


DROPOUT = {"policy_kwargs": extractor(nn.Dropout, p=0.5)}
HOOKS = "there are hooks on modules or parameters of the policy, or on its optimizer"
SINGLE = {"policy_kwargs": BATCH_NORM, "batch_size": 1, "normalize_advantage": False}

# What a model is made with, what is done to it, and what it is told.
REASONS: dict[str, tuple[dict[str, Any], Callable[[PPO], Any], str]] = {
    "dropout": (DROPOUT, nothing, r"the policy draws random numbers \(aten\."),
    "noise": (with_extractor(Noisy), nothing, r"the policy draws random numbers \(aten\.randn"),
    "SGD": (with_optimizer(th.optim.SGD), nothing, "the optimizer is SGD, not Adam or AdamW"),
    "RMSprop": (with_optimizer(th.optim.RMSprop), nothing, "the optimizer is RMSprop, not Adam or AdamW"),
    "optimizer of ones own": (with_optimizer(OwnAdam), nothing, "the optimizer is OwnAdam, not Adam or AdamW"),
    "two groups": ({}, split_parameters, "the optimizer has 2 groups of parameters"),
    "not all parameters": ({}, leave_one_out, "the optimizer does not train all parameters that get a gradient"),
    "depends on values": (with_extractor(DependsOnValues), nothing, "the policy cannot be traced: .*data-dependent"),
    "refuses zeros": (
        with_extractor(RefusesZeros),
        nothing,
        "the policy does not evaluate a minibatch of zeros: ValueError: nothing to see",
    ),
    "batch normalization of one sample": (SINGLE, nothing, "does not evaluate a minibatch of zeros: ValueError"),
    "not to be copied": (with_extractor(NotToBeCopied), nothing, "cannot be copied: TypeError: there can be only one"),
    "buffer of ones own": (
        {"rollout_buffer_class": OwnBuffer},
        nothing,
        "the rollout buffer is of a class of its own, OwnBuffer",
    ),
    "uint16 observations": (
        {"observation_space": spaces.Box(0, 9, (3,), np.uint16)},
        nothing,
        "there are observations of type uint16",
    ),
    "mixed types": (
        {"policy": MixedPolicy},
        nothing,
        r"the parameters are of several or unusual kinds: torch\.float32 on cpu, torch\.float64 on cpu",
    ),
    "forward hook": ({}, lambda model: model.policy.action_net.register_forward_hook(print), HOOKS),
    "forward pre-hook": ({}, lambda model: model.policy.action_net.register_forward_pre_hook(print), HOOKS),
    "backward hook": ({}, lambda model: model.policy.action_net.register_full_backward_hook(print), HOOKS),
    "hook of a parameter": ({}, lambda model: model.policy.log_std.register_hook(print), HOOKS),
    "hook after a gradient": (
        {},
        lambda model: model.policy.log_std.register_post_accumulate_grad_hook(print),
        HOOKS,
    ),
    "hook of the optimizer": ({}, lambda model: model.policy.optimizer.register_step_post_hook(print), HOOKS),
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons(name: str) -> None:
    """And nothing has changed, so that the update can be made eagerly."""
    settings, prepare, reason = REASONS[name]
    model = made(**settings)
    prepare(model)
    with unchanged(model), pytest.raises(Unsupported, match=reason):
        trace_ppo(model)


class unchanged:
    """
    Around something that must leave no trace.

    :param model: the model that it is about
    """

    def __init__(self, model: PPO) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, *exception: object) -> None:
        np.testing.assert_equal(self._state(), self._before)

    def _state(self) -> dict[str, Any]:
        policy = self._model.policy
        return {
            **as_numpy(state_of(self._model)),
            "torch": th.get_rng_state().numpy(),
            "numpy": np.random.get_state(),
            "gradients": [as_numpy(parameter.grad) for parameter in policy.parameters()],
            "requires_grad": [parameter.requires_grad for parameter in policy.parameters()],
            "training": [module.training for module in policy.modules()],
            "buffer": copy.deepcopy(vars(self._model.rollout_buffer)),
            "checks": th.distributions.Distribution._validate_args,
        }


def as_numpy(value: Any) -> Any:
    """Copies of tensors as arrays, in dictionaries, too."""
    if isinstance(value, th.Tensor):
        return value.detach().numpy().copy()
    return {key: as_numpy(part) for key, part in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    "settings",
    [{}, {"policy_kwargs": BATCH_NORM}, {"use_sde": True}, {"action_space": spaces.Discrete(3)}],
    ids=["default", "batch normalization", "state-dependent exploration", "discrete"],
)
@pytest.mark.parametrize("is_trained", [False, True], ids=["new", "trained"])
def test_tracing_leaves_no_trace(settings: dict[str, Any], is_trained: bool) -> None:
    model = made(**settings)
    if is_trained:
        model.train()
    parameters = [id(parameter) for parameter in model.policy.parameters()]
    with unchanged(model):
        trace_ppo(model)
    assert [id(parameter) for parameter in model.policy.parameters()] == parameters
    actions, values, log_probs = model.policy(th.zeros(2, 3))
    assert all(type(tensor) is th.Tensor for tensor in (actions, values, log_probs))


def test_random_numbers_from_elsewhere_are_noticed_at_the_first_minibatch() -> None:
    """In the graph they would be constants."""
    model = made(policy_kwargs={"features_extractor_class": NoisyFromOutside})
    with unchanged(model):
        updates = TracedUpdates(model)
    weights = as_numpy(state_of(model))
    with pytest.raises(Unsupported, match="computes something else"):
        updates.train(1)
    np.testing.assert_equal(as_numpy(state_of(model)), weights)


def test_hooks_on_all_modules_there_are_count_as_well() -> None:
    model = made()
    before = what_decides(model)
    handle = nn.modules.module.register_module_forward_hook(print)
    try:
        assert what_decides(model) != before
        with pytest.raises(Unsupported, match="hooks"):
            trace_ppo(model)
    finally:
        handle.remove()


def test_a_policy_is_traced_as_it_is_in_training_in_either_mode() -> None:
    """After a rollout it is in evaluation mode, in which there is neither dropout nor are there new statistics."""
    graphs = []
    for mode in (False, True):
        model = made(policy_kwargs=BATCH_NORM)
        model.policy.set_training_mode(mode)
        graphs.append(trace_ppo(model).graph.code)
        assert model.policy.training is mode
    assert graphs[0] == graphs[1]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "batch_size": lambda model: setattr(model, "batch_size", 8),
    "normalize_advantage": lambda model: setattr(model, "normalize_advantage", False),
    "clip_range_vf": lambda model: setattr(model, "clip_range_vf", lambda remaining: 0.1),
    "policy": lambda model: setattr(model, "policy", made().policy),
    "optimizer": lambda model: setattr(model.policy, "optimizer", th.optim.Adam(model.policy.parameters())),
    "setting of the optimizer": lambda model: model.policy.optimizer.param_groups[0].update(eps=1e-3),
    "frozen parameter": lambda model: model.policy.log_std.requires_grad_(False),
    "another parameter": lambda model: model.policy.add_module("another", nn.Linear(2, 2)),
    "hook": lambda model: model.policy.action_net.register_forward_hook(print),
    "observations": lambda model: setattr(
        model.rollout_buffer, "observations", model.rollout_buffer.observations.astype(np.float64)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_needs_another_trace_is_recognised(name: str) -> None:
    model = made()
    before = what_decides(model)
    CHANGES[name](model)
    assert what_decides(model) != before


def test_what_needs_no_other_trace_is_no_change() -> None:
    """Weights, coefficients, and what an update and another rollout change."""
    model = made()
    before = what_decides(model)
    TracedUpdates(model).train()
    model.ent_coef, model.learning_rate, model.target_kl, model.max_grad_norm = 0.1, 1e-2, 0.1, 1.0
    assert what_decides(model) == before


def test_long_errors_are_told_in_one_short_line() -> None:
    text = in_short(ValueError("first line\nsecond line " + 1000 * "z"))
    assert text.startswith("ValueError: first line second line zz") and text.endswith("...")
    assert len(text) == MAX_LENGTH


def test_observations_of_the_example_are_those_of_the_policy() -> None:
    """The graph and the step take the same inputs, of the shapes that the buffer has."""
    traced = trace_ppo(made())
    assert traced.inputs[traced.n_in_place].shape == (16, *VECTOR.shape)
    placeholders = [node for node in traced.graph.graph.nodes if node.op == "placeholder"]
    assert len(placeholders) == len(traced.inputs)
