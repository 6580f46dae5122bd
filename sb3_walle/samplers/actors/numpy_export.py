"""
Whether the policy of an on-policy algorithm can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch and Stable-Baselines3.
"""

from functools import partial
from typing import cast

import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_comparison import check_same_outputs
from sb3_walle.samplers.actors.numpy_heads import BernoulliSpec, CategoricalSpec, GaussianSpec, HeadSpec
from sb3_walle.samplers.actors.numpy_inputs import Input
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear
from sb3_walle.samplers.actors.numpy_parts import (
    NoNumPyVersion,
    check_methods,
    inputs_of,
    layer_of,
    layers_in,
    linear_of,
)

# What samples actions, the modules apart.
POLICY_METHODS = ("forward", "extract_features", "get_distribution", "_get_action_dist_from_latent", "evaluate_actions")
DISTRIBUTION_METHODS = ("proba_distribution", "get_actions", "sample", "log_prob")


def why_not_numpy(policy: BasePolicy) -> str | None:
    """
    Tell whether the NumPy actor computes the same action distribution as a policy.

    :return: None if it does, or else which part of the policy it cannot run, as a clause ("it uses gSDE")
    """
    try:
        check_same_logits(export_numpy_actor(policy), policy)
    except NoNumPyVersion as reason:
        return str(reason)
    return None


def check_same_logits(spec: NumPyActorSpec, policy: BasePolicy) -> None:
    """
    :param spec: the NumPy actor for the policy
    :raises NoNumPyVersion: if the policy computes another distribution, or needs hooks
    """
    check_same_outputs(spec, policy, partial(_torch_outputs, cast(ActorCriticPolicy, policy)))


def export_numpy_actor(policy: BasePolicy, seed: tuple[int, ...] = ()) -> NumPyActorSpec:
    """
    Describe a policy to the NumPy actor. The weights are not part of it: they are loaded by name from the policy's
    ``state_dict()``.

    :param policy: the policy; it must not be replaced by one of another shape afterwards
    :param seed: what determines the actor's random numbers; samplers need different ones
    :raises NoNumPyVersion: if the policy has a part that is unknown to NumPy; see :func:`why_not_numpy` for the rest
    """
    if not isinstance(policy, ActorCriticPolicy):
        raise NoNumPyVersion(f"{type(policy).__name__} is not an ActorCriticPolicy")
    check_methods(policy, ActorCriticPolicy, POLICY_METHODS)
    inputs, layers, last_layer = layers_of(policy)
    return NumPyActorSpec(inputs, layers, (last_layer,), head_of(policy, last_layer.n_outputs), seed)


def layers_of(policy: ActorCriticPolicy) -> tuple[tuple[Input, ...], tuple[Linear | Activation, ...], Linear]:
    """
    :return: what becomes of the observations of a policy, the layers between these features and the last one, and that
    :raises NoNumPyVersion: if one of them is unknown to NumPy
    """
    extractor = policy.features_extractor if policy.share_features_extractor else policy.pi_features_extractor
    inputs = inputs_of(extractor, policy.observation_space, policy.normalize_images)
    if type(policy.mlp_extractor) is not MlpExtractor:
        raise NoNumPyVersion(f"its mlp_extractor is a {type(policy.mlp_extractor).__name__}")
    layers = [layer_of(*layer) for layer in layers_in(policy.mlp_extractor.policy_net, "mlp_extractor.policy_net")]
    return inputs, tuple(layers), linear_of("action_net", policy.action_net)


def head_of(policy: ActorCriticPolicy, n_outputs: int) -> HeadSpec:
    """
    :param n_outputs: how many outputs the policy's last layer has
    :raises NoNumPyVersion: if the policy's action distribution is unknown to NumPy
    """
    kind, shape = type(policy.action_dist), policy.action_space.shape
    assert shape is not None
    check_methods(policy.action_dist, kind, DISTRIBUTION_METHODS)
    if kind is DiagGaussianDistribution:
        if policy.log_std.shape != (n_outputs,):
            raise NoNumPyVersion(f"its log_std is of shape {tuple(policy.log_std.shape)}, not ({n_outputs},)")
        return GaussianSpec(shape)
    if kind is BernoulliDistribution:
        return BernoulliSpec(shape)
    if kind is CategoricalDistribution:
        return CategoricalSpec(shape, (n_outputs,))
    if isinstance(policy.action_dist, MultiCategoricalDistribution):
        return CategoricalSpec(shape, tuple(int(size) for size in policy.action_dist.action_dims))
    if kind is StateDependentNoiseDistribution:
        raise NoNumPyVersion("it uses gSDE")
    raise NoNumPyVersion(f"its action distribution is a {kind.__name__}")


def _torch_outputs(policy: ActorCriticPolicy, observations: PyTorchObs) -> th.Tensor:
    """As ``ActorCriticPolicy.forward()``."""
    features = policy.extract_features(observations)
    if policy.share_features_extractor:
        latent, _ = policy.mlp_extractor(features)
    else:
        latent = policy.mlp_extractor.forward_actor(features[0])
    return policy.action_net(latent)
