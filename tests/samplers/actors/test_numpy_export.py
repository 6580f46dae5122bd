"""Which policies NumPy can run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from numpy_helpers import BOX, CONTINUOUS, build_policy
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BaseModel,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from sb3_walle.samplers.actors.numpy_export import export_numpy_actor, why_not_numpy


class OverridesForward(ActorCriticPolicy):
    def forward(self, obs: th.Tensor, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        actions, values, log_probs = super().forward(obs, deterministic)
        return actions + 1.0, values, log_probs


class OverridesDistribution(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        return super()._get_action_dist_from_latent(2.0 * latent_pi)


class OverridesFeatures(ActorCriticPolicy):
    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return 2.0 * super().extract_features(obs, features_extractor)


class DoublesFeatures(BaseModel):
    def extract_features(self, obs: Any, features_extractor: Any) -> th.Tensor:
        return 2.0 * super().extract_features(obs, features_extractor)


class MixesInFeatures(ActorCriticPolicy, DoublesFeatures):
    """Between SB3's policy and its base, in the order in which Python looks for methods."""


class OnlySetsDefaults(ActorCriticPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, net_arch=[3], activation_fn=nn.ELU)

    def predict_values(self, obs: Any) -> th.Tensor:
        return super().predict_values(obs) + 1.0


class NotActorCritic(BasePolicy):
    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return observation


class DropoutExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, features_dim=4)
        self.dropout = nn.Dropout()

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.dropout(observations)


class CustomFlattenExtractor(FlattenExtractor):
    pass


class CustomTanh(nn.Tanh):
    pass


def build_of(policy_class: type[ActorCriticPolicy], observation_space: spaces.Space = BOX, **kwargs: Any) -> Any:
    return lambda: policy_class(observation_space, CONTINUOUS, lambda _: 1e-3, **kwargs)


def changed(change: Callable[[Any], object], observation_space: spaces.Space = BOX) -> Any:
    def build() -> ActorCriticPolicy:
        policy = build_policy(observation_space, net_arch=[3])
        change(policy)
        return policy

    return build


def replace_forward(module: nn.Module) -> None:
    module.forward = lambda *args: args  # type: ignore[method-assign]


def scale_forward(module: nn.Module) -> None:
    forward = module.forward

    def scaled(*args: Any) -> Any:
        results = forward(*args)
        return tuple(1.1 * result for result in results) if isinstance(results, tuple) else 1.1 * results

    module.forward = scaled  # type: ignore[method-assign]


def replace_flatten(policy: ActorCriticPolicy) -> None:
    policy.features_extractor.flatten = nn.Sequential(nn.Flatten(), nn.Dropout())


def replace_layer(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.policy_net[1] = nn.BatchNorm1d(3)


def replace_log_std(policy: ActorCriticPolicy) -> None:
    policy.log_std = nn.Parameter(th.zeros(1))


def replace_pi_features_extractor(policy: ActorCriticPolicy) -> None:
    policy.pi_features_extractor = FlattenExtractor(BOX)


def replace_log_prob(policy: ActorCriticPolicy) -> None:
    policy.action_dist.log_prob = lambda actions: actions  # type: ignore[method-assign]


def sandwich_action_net(policy: ActorCriticPolicy) -> None:
    policy.action_net = nn.Sequential(policy.action_net, nn.Tanh())


def fill_with_nan(policy: ActorCriticPolicy) -> None:
    """As after an update that diverged, of which others tell."""
    with th.no_grad():
        policy.action_net.weight.fill_(th.nan)


SOMETHING_ELSE = "it computes something else in torch than its layers do in NumPy"
REFUSED = {
    "overrides forward": (build_of(OverridesForward), "OverridesForward overrides forward"),
    "overrides the distribution": (build_of(OverridesDistribution), "overrides _get_action_dist_from_latent"),
    "not an actor-critic": (lambda: NotActorCritic(BOX, CONTINUOUS), "NotActorCritic is not an ActorCriticPolicy"),
    "gSDE": (build_of(ActorCriticPolicy, use_sde=True), "it uses gSDE"),
    "CNN": (
        build_of(ActorCriticCnnPolicy, spaces.Box(0, 255, (1, 36, 36), np.uint8)),
        "its features extractor is a NatureCNN",
    ),
    "CNN for one key": (
        build_of(
            MultiInputActorCriticPolicy, spaces.Dict(camera=spaces.Box(0, 255, (1, 36, 36), np.uint8), position=BOX)
        ),
        "its features extractor for 'camera' is a NatureCNN",
    ),
    "custom extractor": (
        build_of(ActorCriticPolicy, features_extractor_class=DropoutExtractor),
        "its features extractor is a DropoutExtractor",
    ),
    "extractor's subclass": (
        build_of(ActorCriticPolicy, features_extractor_class=CustomFlattenExtractor),
        "its features extractor is a CustomFlattenExtractor",
    ),
    "unknown activation": (
        build_of(ActorCriticPolicy, activation_fn=nn.Mish),
        "its layer 'Mish' (mlp_extractor.policy_net.1) has no NumPy version",
    ),
    "activation's subclass": (build_of(ActorCriticPolicy, activation_fn=CustomTanh), "its layer 'CustomTanh'"),
    "activation with weights": (build_of(ActorCriticPolicy, activation_fn=nn.PReLU), "its layer 'PReLU'"),
    "batch normalization": (changed(replace_layer), "its layer 'BatchNorm1d' (mlp_extractor.policy_net.1)"),
    "float64": (changed(lambda policy: policy.double()), "is of torch.float64"),
    "log_std of another shape": (changed(replace_log_std), "its log_std is of shape (1,), not (3,)"),
    "observations that start at 1": (
        build_of(ActorCriticPolicy, spaces.Discrete(3, start=1)),
        "it fails on an example: RuntimeError",
    ),
    "observations without dimension": (
        build_of(ActorCriticPolicy, spaces.Box(0.0, 1.0, ())),
        "it fails on an example: IndexError",
    ),
    "action_net with an activation": (changed(sandwich_action_net), "its action_net is a Sequential, not a Linear"),
    "hook on the policy": (
        changed(lambda policy: policy.register_forward_hook(lambda module, inputs, output: output)),
        "a forward hook is registered on the policy",
    ),
    "hook on a layer": (
        changed(
            lambda policy: policy.mlp_extractor.policy_net[0].register_forward_hook(lambda module, _, output: output)
        ),
        "a forward hook is registered on mlp_extractor.policy_net.0",
    ),
    "hook before a layer": (
        changed(lambda policy: policy.action_net.register_forward_pre_hook(lambda *_: None)),
        "a forward hook is registered on action_net",
    ),
    "spectral norm": (
        changed(lambda policy: nn.utils.parametrizations.spectral_norm(policy.action_net)),
        "its action_net is a ParametrizedLinear, not a Linear",
    ),
    "parametrized log_std": (
        changed(lambda policy: nn.utils.parametrize.register_parametrization(policy, "log_std", nn.Tanh())),
        "its state_dict() has no 'log_std'",
    ),
    "old weight norm": (
        changed(lambda policy: nn.utils.weight_norm(policy.action_net)),
        "a forward hook is registered on action_net",
    ),
    "own forward": (changed(replace_forward), "ActorCriticPolicy overrides forward"),
    "own forward of a layer": (
        changed(lambda policy: replace_forward(policy.mlp_extractor.policy_net[1])),
        "it fails on an example: TypeError",
    ),
    "own forward of the extractor": (
        changed(lambda policy: scale_forward(policy.features_extractor)),
        SOMETHING_ELSE,
    ),
    "own forward of all layers": (changed(lambda policy: scale_forward(policy.mlp_extractor)), SOMETHING_ELSE),
    "flatten that drops out": (changed(replace_flatten), SOMETHING_ELSE),
    "mixin with features of its own": (build_of(MixesInFeatures), SOMETHING_ELSE),
    "dictionary, own forward": (
        changed(lambda policy: scale_forward(policy.features_extractor), spaces.Dict(a=BOX, b=spaces.Discrete(3))),
        SOMETHING_ELSE,
    ),
    "own log_prob of the distribution": (changed(replace_log_prob), "DiagGaussianDistribution overrides log_prob"),
    "own features": (build_of(OverridesFeatures), "OverridesFeatures overrides extract_features"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_policies(case: str) -> None:
    build, reason = REFUSED[case]
    policy = build()
    assert reason in (why_not_numpy(policy) or "")


@pytest.mark.parametrize(
    "build",
    [
        build_of(ActorCriticPolicy),
        build_of(OnlySetsDefaults),
        build_of(MultiInputActorCriticPolicy, spaces.Dict(a=BOX, b=spaces.Discrete(3))),
        build_of(ActorCriticPolicy, share_features_extractor=False),
        build_of(ActorCriticCnnPolicy, features_extractor_class=FlattenExtractor),
        changed(lambda policy: policy.mlp_extractor.value_net[0].register_forward_hook(lambda *_: None)),
        changed(lambda policy: policy.mlp_extractor.policy_net[0].register_forward_hook(lambda *_: None)),
        changed(lambda policy: policy.action_net.register_full_backward_hook(lambda *_: None)),
        changed(replace_pi_features_extractor),
        changed(fill_with_nan),
        changed(lambda policy: policy(th.zeros(1, 4, dtype=th.float64))),
    ],
    ids=[
        "default",
        "subclass",
        "dictionary",
        "not shared",
        "CNN class",
        "hook on the critic",
        "hook that watches",
        "backward hook",
        "another extractor of the same kind",
        "not finite",
        "used",
    ],
)
def test_accepted_policies(build: Callable[[], ActorCriticPolicy]) -> None:
    assert why_not_numpy(build()) is None


def test_a_comparison_leaves_nothing_behind() -> None:
    policy = build_policy()
    called: list[None] = []
    policy.action_net.register_forward_hook(lambda *_: called.append(None))
    policy.train()
    policy.value_net.eval()
    before = th.get_rng_state(), np.random.get_state()[1].tolist(), [module.training for module in policy.modules()]  # type: ignore[index]
    assert why_not_numpy(policy) is None
    after = th.get_rng_state(), np.random.get_state()[1].tolist(), [module.training for module in policy.modules()]  # type: ignore[index]
    assert th.equal(before[0], after[0]) and before[1:] == after[1:]
    assert called == [] and len(policy.action_net._forward_hooks) == 1
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_only_the_weights_of_the_actor_are_named() -> None:
    policy = build_policy(net_arch={"pi": [5], "vf": [5]})
    assert set(export_numpy_actor(policy, seed=0).weight_names) == {
        "mlp_extractor.policy_net.0.weight",
        "mlp_extractor.policy_net.0.bias",
        "action_net.weight",
        "action_net.bias",
        "log_std",
    }


def test_spec_can_be_given_another_seed() -> None:
    spec = export_numpy_actor(build_policy(), seed=1)
    assert replace(spec, seed=(1, 2)) == export_numpy_actor(build_policy(), seed=(1, 2))
