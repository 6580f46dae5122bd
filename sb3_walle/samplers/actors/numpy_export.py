"""
Whether a policy can run without PyTorch, and the NumPy actor that runs it. This is the learner's side: it imports
PyTorch and Stable-Baselines3.
"""

from collections.abc import Iterator

import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_heads import LOG_STD, BernoulliSpec, CategoricalSpec, GaussianSpec, HeadSpec
from sb3_walle.samplers.actors.numpy_parts import (
    CALL_METHODS,
    features_obstacles,
    inputs,
    interference,
    layer_obstacles,
    layers,
    layers_of,
    linear,
)
from sb3_walle.samplers.actors.torch_policy import staying_hooks

DISTRIBUTIONS = (BernoulliDistribution, CategoricalDistribution, DiagGaussianDistribution, MultiCategoricalDistribution)

# What decides the actions of a policy.
POLICY_METHODS = (
    *CALL_METHODS,
    "_predict",
    "get_distribution",
    "extract_features",
    "_get_action_dist_from_latent",
    "evaluate_actions",
    "state_dict",
)
EXTRACTOR_METHODS = (*CALL_METHODS, "forward_actor")


def why_not_numpy(policy: BasePolicy) -> str | None:
    """
    Tell whether the NumPy actor computes the same action distribution as a policy.

    :param policy: the policy
    :return: None if it does, or else which part of the policy it cannot run, as a clause ("it uses gSDE")
    """
    return next(_obstacles(policy), None)


def export_numpy_actor(policy: BasePolicy, seed: int | tuple[int, ...]) -> NumPyActorSpec:
    """
    Describe a policy to the NumPy actor. The weights are not part of it: they are loaded by name from the policy's
    ``state_dict()``.

    :param policy: the policy; it must not be replaced by one of another shape afterwards
    :param seed: what determines the actor's random numbers; samplers need different ones
    :return: how to build the actor
    :raises ValueError: if :func:`why_not_numpy` tells a reason
    """
    reason = why_not_numpy(policy)
    if reason is not None:
        raise ValueError(f"The policy cannot run in NumPy: {reason}")
    assert isinstance(policy, ActorCriticPolicy)
    return _spec(policy, seed)


def _spec(policy: ActorCriticPolicy, seed: int | tuple[int, ...]) -> NumPyActorSpec:
    return NumPyActorSpec(
        inputs=inputs(policy.pi_features_extractor, policy.observation_space, policy.normalize_images),
        layers=layers(_policy_net(policy)),
        last_layer=linear("action_net", policy.action_net),
        head=_head(policy),
        seed=seed,
    )


def _policy_net(policy: ActorCriticPolicy) -> list[tuple[str, nn.Module]]:
    """The layers before the last one, with their names."""
    return layers_of(policy.mlp_extractor.policy_net, "mlp_extractor.policy_net")


def _head(policy: ActorCriticPolicy) -> HeadSpec:
    distribution, shape = policy.action_dist, policy.action_space.shape
    assert shape is not None
    if isinstance(distribution, DiagGaussianDistribution):
        return GaussianSpec(shape)
    if isinstance(distribution, BernoulliDistribution):
        return BernoulliSpec(shape)
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalSpec(shape, (linear("action_net", policy.action_net).n_outputs,))
    assert isinstance(distribution, MultiCategoricalDistribution)
    return CategoricalSpec(shape, tuple(int(size) for size in distribution.action_dims))


# Reasons why NumPy cannot run a policy. Each group of checks can rely on those before it.


def _obstacles(policy: BasePolicy) -> Iterator[str]:
    yield from _class_obstacles(policy)
    assert isinstance(policy, ActorCriticPolicy)
    yield from _distribution_obstacles(policy)
    yield from _features_obstacles(policy)
    yield from _network_obstacles(policy)
    yield from _interference(policy)
    yield from _weight_obstacles(policy)


def _class_obstacles(policy: BasePolicy) -> Iterator[str]:
    name = type(policy).__name__
    if not isinstance(policy, ActorCriticPolicy):
        yield f"{name} is not an ActorCriticPolicy"
        return
    for method in POLICY_METHODS:
        if getattr(type(policy), method) is not getattr(ActorCriticPolicy, method):
            yield f"{name} overrides {method}"
    if super(ActorCriticPolicy, type(policy)).extract_features is not BaseModel.extract_features:
        yield f"{name} overrides extract_features of BaseModel"


def _distribution_obstacles(policy: ActorCriticPolicy) -> Iterator[str]:
    distribution = policy.action_dist
    name = type(distribution).__name__
    if isinstance(distribution, StateDependentNoiseDistribution):
        yield "it uses gSDE"
    if type(distribution) not in DISTRIBUTIONS:
        yield f"its action distribution is a {name}"
    for attribute in vars(distribution):
        if callable(getattr(type(distribution), attribute, None)):
            yield f"its {name} has its own {attribute}"


def _features_obstacles(policy: ActorCriticPolicy) -> Iterator[str]:
    extractor = policy.pi_features_extractor
    yield from features_obstacles(extractor, policy.observation_space)
    if policy.share_features_extractor and policy.features_extractor is not extractor:
        yield "its features extractor is said to be shared, but it has several"


def _network_obstacles(policy: ActorCriticPolicy) -> Iterator[str]:
    if type(policy.mlp_extractor) is not MlpExtractor:
        yield f"its mlp_extractor is a {type(policy.mlp_extractor).__name__}"
        return
    if type(policy.mlp_extractor.policy_net) is not nn.Sequential:
        yield f"its mlp_extractor.policy_net is a {type(policy.mlp_extractor.policy_net).__name__}"
        return
    yield from layer_obstacles(_policy_net(policy), policy.activation_fn)
    if type(policy.action_net) is not nn.Linear:
        yield f"its action_net is a {type(policy.action_net).__name__}, not a Linear"


def _interference(policy: ActorCriticPolicy) -> Iterator[str]:
    """What was attached to the policy or to one of its modules and can change their results."""
    watching = staying_hooks(policy)
    yield from interference([("the policy", policy)], POLICY_METHODS, watching)
    yield from interference(_actor_modules(policy), EXTRACTOR_METHODS, watching)


def _actor_modules(policy: ActorCriticPolicy) -> Iterator[tuple[str, nn.Module]]:
    """The modules that take part in choosing actions, with their names."""
    yield from policy.pi_features_extractor.named_modules(prefix="pi_features_extractor")
    yield "mlp_extractor", policy.mlp_extractor
    yield from policy.mlp_extractor.policy_net.named_modules(prefix="mlp_extractor.policy_net")
    yield "action_net", policy.action_net


def _weight_obstacles(policy: ActorCriticPolicy) -> Iterator[str]:
    state = policy.state_dict()
    for name in _spec(policy, seed=0).weight_names:
        if name not in state:
            yield f"its state_dict() has no '{name}'"
        elif state[name].dtype != th.float32:
            yield f"its '{name}' is of {state[name].dtype}"
    if isinstance(policy.action_dist, DiagGaussianDistribution):
        n_outputs = linear("action_net", policy.action_net).n_outputs
        if state[LOG_STD].shape != (n_outputs,):
            yield f"its log_std is of shape {tuple(state[LOG_STD].shape)}, not ({n_outputs},)"
