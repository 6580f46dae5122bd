"""
Whether a policy of sb3-contrib's MaskablePPO can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch, Stable-Baselines3 and sb3-contrib.
"""

from typing import Any, cast

from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_walle.samplers.actors.masked_numpy_actor import MaskedNumPyActorSpec, MaskedSpec
from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_export import DISTRIBUTION_METHODS, POLICY_METHODS, layers_of
from sb3_walle.samplers.actors.numpy_heads import CategoricalSpec
from sb3_walle.samplers.actors.numpy_layers import Linear
from sb3_walle.samplers.actors.numpy_parts import NoNumPyVersion, check_methods

_KNOWN = (MaskableCategoricalDistribution, MaskableMultiCategoricalDistribution, MaskableBernoulliDistribution)


def export_masked_numpy_actor(policy: BasePolicy) -> MaskedNumPyActorSpec:
    """
    As :func:`~sb3_walle.samplers.actors.numpy_export.export_numpy_actor`, for a policy that is given masks.

    :raises NoNumPyVersion: if the policy has a part that is unknown to NumPy
    """
    inputs, layers, last_layer, shape, sizes = _parts(policy)
    return MaskedNumPyActorSpec(inputs, layers, (last_layer,), MaskedSpec(shape, sizes), seed=())


def export_without_masks(policy: BasePolicy) -> NumPyActorSpec:
    """
    The same for ``use_masking=False``: the policy takes any action.

    :raises NoNumPyVersion: if the policy has a part that is unknown to NumPy
    """
    inputs, layers, last_layer, shape, sizes = _parts(policy)
    return NumPyActorSpec(inputs, layers, (last_layer,), CategoricalSpec(shape, sizes), seed=())


def _parts(policy: BasePolicy) -> tuple[Any, Any, Linear, tuple[int, ...], tuple[int, ...]]:
    """Inputs, layers and last layer; shape of an action, and the number of categories of each distribution."""
    if not isinstance(policy, MaskableActorCriticPolicy):
        raise NoNumPyVersion(f"{type(policy).__name__} is not a MaskableActorCriticPolicy")
    check_methods(policy, MaskableActorCriticPolicy, POLICY_METHODS)
    kind = type(policy.action_dist)
    if kind not in _KNOWN:
        raise NoNumPyVersion(f"its action distribution is a {kind.__name__}")
    check_methods(policy.action_dist, kind, (*DISTRIBUTION_METHODS, "apply_masking"))
    # It has the parts of SB3's own, under the same names.
    return (*layers_of(cast(ActorCriticPolicy, policy)), policy.action_space.shape or (), _sizes(policy))


def _sizes(policy: MaskableActorCriticPolicy) -> tuple[int, ...]:
    distribution = policy.action_dist
    if isinstance(distribution, MaskableMultiCategoricalDistribution):
        return tuple(int(size) for size in distribution.action_dims)
    return (cast(MaskableCategoricalDistribution, distribution).action_dim,)
