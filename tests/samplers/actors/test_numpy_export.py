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
        "its activation 'Mish' (mlp_extractor.policy_net.1) has no NumPy version",
    ),
    "activation's subclass": (build_of(ActorCriticPolicy, activation_fn=CustomTanh), "its activation 'CustomTanh'"),
    "activation with weights": (build_of(ActorCriticPolicy, activation_fn=nn.PReLU), "its activation 'PReLU'"),
    "batch normalization": (changed(replace_layer), "its layer 'BatchNorm1d' (mlp_extractor.policy_net.1)"),
    "float64": (changed(lambda policy: policy.double()), "is of torch.float64"),
    "log_std of another shape": (changed(replace_log_std), "its log_std is of shape (1,), not (3,)"),
    "observations that start at 1": (build_of(ActorCriticPolicy, spaces.Discrete(3, start=1)), "do not start at 0"),
    "observations without dimension": (build_of(ActorCriticPolicy, spaces.Box(0.0, 1.0, ())), "have no dimension"),
    "two extractors of one": (changed(replace_pi_features_extractor), "its features extractor is said to be shared"),
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
        "the policy is parametrized",
    ),
    "own forward": (changed(replace_forward), "the policy has its own forward"),
    "own forward of a layer": (
        changed(lambda policy: replace_forward(policy.mlp_extractor.policy_net[1])),
        "mlp_extractor.policy_net.1 has its own forward",
    ),
    "own forward of the extractor": (
        changed(lambda policy: replace_forward(policy.features_extractor.flatten)),
        "pi_features_extractor.flatten has its own forward",
    ),
    "own log_prob of the distribution": (
        changed(replace_log_prob),
        "its DiagGaussianDistribution has its own log_prob",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_policies(case: str) -> None:
    build, reason = REFUSED[case]
    policy = build()
    assert reason in (why_not_numpy(policy) or "")
    with pytest.raises(ValueError, match="cannot run in NumPy: "):
        export_numpy_actor(policy, seed=0)


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
        "used",
    ],
)
def test_accepted_policies(build: Callable[[], ActorCriticPolicy]) -> None:
    assert why_not_numpy(build()) is None


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
