"""From an off-policy algorithm to what its samplers collect."""

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.algorithm.collection_request import CollectionRequest, CollectionSpec
from sb3_walle.algorithm.policy_weights import policy_weights
from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.off_policy.cuts import can_mark_cuts
from sb3_walle.off_policy.exploring_specs import ExploringSpecs
from sb3_walle.off_policy.replay_buffer import buffer_of
from sb3_walle.samplers.actors.exploration import EXPLORATION
from sb3_walle.samplers.actors.protocol import RANDOM_STATE
from sb3_walle.samplers.actors.random_streams import global_state

# What actors name beyond the entries of the policy's state_dict().
_NO_WEIGHTS = frozenset((*EXPLORATION, RANDOM_STATE))


def published_weights(
    algorithm: OffPolicyAlgorithm, names: Sequence[str], plan: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """:return: all that samplers get for a rollout: what their actors name, and how to explore"""
    weights = policy_weights(algorithm.policy, (name for name in names if name not in _NO_WEIGHTS))
    if RANDOM_STATE in names:
        weights[RANDOM_STATE] = global_state(algorithm.action_space)
    return {**weights, **plan}


def off_policy_spec(
    algorithm: OffPolicyAlgorithm, request: CollectionRequest, noise_ladder: str | None, plan: Mapping[str, np.ndarray]
) -> CollectionSpec:
    """
    :param plan: how samplers explore in the first rollout; where it is empty, the spec only tells how much memory is
        needed
    """
    specs = ExploringSpecs(algorithm, request, noise_ladder)
    actors = specs.of_all_samplers() if plan else [specs.for_size()]
    rules = StreamRules(can_cut=can_mark_cuts(buffer_of(algorithm)))
    return CollectionSpec(
        specs.actor,
        actors,
        request.task(isinstance(algorithm.action_space, spaces.Box), rules),
        published_weights(algorithm, actors[0].weight_names, plan),
    )
