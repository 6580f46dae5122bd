"""
Whether a policy can run without PyTorch, and the NumPy actor that runs it. This is the learner's side: it imports
PyTorch and Stable-Baselines3.
"""

from collections.abc import Iterator

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor
from torch import nn

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_heads import LOG_STD, BernoulliSpec, CategoricalSpec, GaussianSpec, HeadSpec
from sb3_walle.samplers.actors.numpy_inputs import FlatInput, Input, OneHotInput
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear

#: The activation functions that have a NumPy version, and the attributes that change their results.
ACTIVATION_PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.CELU: ("alpha",),
    nn.ELU: ("alpha",),
    nn.GELU: ("approximate",),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.Identity: (),
    nn.LeakyReLU: ("negative_slope",),
    nn.ReLU: (),
    nn.ReLU6: (),
    nn.SELU: (),
    nn.SiLU: (),
    nn.Sigmoid: (),
    nn.Softplus: ("beta", "threshold"),
    nn.Softsign: (),
    nn.Tanh: (),
}

DISTRIBUTIONS = (BernoulliDistribution, CategoricalDistribution, DiagGaussianDistribution, MultiCategoricalDistribution)

# What decides the actions of a policy, and how PyTorch calls it.
CALL_METHODS = ("__call__", "_call_impl", "_wrapped_call_impl", "forward")
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
        inputs=tuple(_input(key, space, policy.normalize_images) for key, space in _observation_spaces(policy).items()),
        layers=tuple(_layer(name, module) for name, module in _policy_net(policy)),
        last_layer=_linear("action_net", policy.action_net),
        head=_head(policy),
        seed=seed,
    )


# How the parts of a policy are described


def _observation_spaces(policy: ActorCriticPolicy) -> dict[str | None, spaces.Space]:
    """The spaces of the observations, in the order in which the features extractor concatenates their features."""
    extractor = policy.pi_features_extractor
    if isinstance(extractor, CombinedExtractor):
        assert isinstance(policy.observation_space, spaces.Dict)
        return {key: policy.observation_space.spaces[key] for key in extractor.extractors}
    return {None: policy.observation_space}


def _input(key: str | None, space: spaces.Space, normalize_images: bool) -> Input:
    if isinstance(space, spaces.Discrete):
        return OneHotInput(key, (), (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return OneHotInput(key, space.nvec.shape, tuple(space.nvec.tolist()))
    assert space.shape is not None
    return FlatInput(key, space.shape, is_image=normalize_images and is_image_space(space))


def _policy_net(policy: ActorCriticPolicy) -> list[tuple[str, nn.Module]]:
    """The layers before the last one, with their names. One that is used twice is there twice."""
    named = policy.mlp_extractor.policy_net.named_modules(prefix="mlp_extractor.policy_net", remove_duplicate=False)
    return list(named)[1:]


def _layer(name: str, module: nn.Module) -> Linear | Activation:
    if isinstance(module, nn.Linear):
        return _linear(name, module)
    parameters = tuple((attribute, getattr(module, attribute)) for attribute in ACTIVATION_PARAMETERS[type(module)])
    return Activation(type(module).__name__, parameters)


def _linear(name: str, module: nn.Module) -> Linear:
    assert isinstance(module, nn.Linear)
    n_outputs, n_inputs = module.weight.shape
    return Linear(f"{name}.weight", None if module.bias is None else f"{name}.bias", n_inputs, n_outputs)


def _head(policy: ActorCriticPolicy) -> HeadSpec:
    distribution, shape = policy.action_dist, policy.action_space.shape
    assert shape is not None
    if isinstance(distribution, DiagGaussianDistribution):
        return GaussianSpec(shape)
    if isinstance(distribution, BernoulliDistribution):
        return BernoulliSpec(shape)
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalSpec(shape, (_linear("action_net", policy.action_net).n_outputs,))
    assert isinstance(distribution, MultiCategoricalDistribution)
    return CategoricalSpec(shape, tuple(int(size) for size in distribution.action_dims))


# What stands against it. Each group of checks can rely on those before it.


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
    if type(extractor) is FlattenExtractor:
        yield from _flatten_obstacles("its features extractor's 'flatten'", extractor.flatten)
    elif type(extractor) is CombinedExtractor:
        for key, module in extractor.extractors.items():
            yield from _flatten_obstacles(f"its features extractor for '{key}'", module)
    else:
        yield f"its features extractor is a {type(extractor).__name__}"
    if policy.share_features_extractor and policy.features_extractor is not extractor:
        yield "its features extractor is said to be shared, but it has several"
    if isinstance(policy.observation_space, spaces.Dict) and type(extractor) is FlattenExtractor:
        yield "its features extractor is a FlattenExtractor, which cannot take the observations of a Dict space"
    for space in _observation_spaces(policy).values():
        yield from _space_obstacles(space)


def _flatten_obstacles(name: str, module: nn.Module) -> Iterator[str]:
    if type(module) is not nn.Flatten:
        yield f"{name} is a {type(module).__name__}"
    elif (module.start_dim, module.end_dim) != (1, -1):
        yield f"{name} leaves dimensions unflattened"


def _space_obstacles(space: spaces.Space) -> Iterator[str]:
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        if not space.shape:
            yield f"SB3 cannot flatten the observations of {space}, which have no dimension"
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if np.any(space.start):
            yield f"SB3 cannot encode the observations of {space}, which do not start at 0"
        if len(space.shape or ()) > 1:
            yield f"SB3 cannot encode the observations of {space}, which have more than one dimension"
    else:
        yield f"its observations are of {space}"


def _network_obstacles(policy: ActorCriticPolicy) -> Iterator[str]:
    if type(policy.mlp_extractor) is not MlpExtractor:
        yield f"its mlp_extractor is a {type(policy.mlp_extractor).__name__}"
        return
    if type(policy.mlp_extractor.policy_net) is not nn.Sequential:
        yield f"its mlp_extractor.policy_net is a {type(policy.mlp_extractor.policy_net).__name__}"
        return
    for name, module in _policy_net(policy):
        if type(module) is not nn.Linear and type(module) not in ACTIVATION_PARAMETERS:
            kind = "activation" if type(module) is policy.activation_fn else "layer"
            yield f"its {kind} '{type(module).__name__}' ({name}) has no NumPy version"
    if type(policy.action_net) is not nn.Linear:
        yield f"its action_net is a {type(policy.action_net).__name__}, not a Linear"


def _interference(policy: ActorCriticPolicy) -> Iterator[str]:
    """What was attached to the policy or to one of its modules and can change their results."""
    for name, module in _actor_modules(policy):
        if module._forward_hooks or module._forward_pre_hooks:
            yield f"a forward hook is registered on {name}"
        if nn.utils.parametrize.is_parametrized(module):
            yield f"{name} is parametrized"
        for method in POLICY_METHODS if module is policy else EXTRACTOR_METHODS:
            if method in vars(module):
                yield f"{name} has its own {method}"


def _actor_modules(policy: ActorCriticPolicy) -> Iterator[tuple[str, nn.Module]]:
    """The modules that take part in choosing actions, with their names."""
    yield "the policy", policy
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
        n_outputs = _linear("action_net", policy.action_net).n_outputs
        if state[LOG_STD].shape != (n_outputs,):
            yield f"its log_std is of shape {tuple(state[LOG_STD].shape)}, not ({n_outputs},)"
