"""From an off-policy algorithm to the collector that feeds it."""

from collections.abc import Mapping

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.algorithm.collection_request import CollectionRequest
from sb3_walle.algorithm.policy_weights import policy_weights
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import plan_queues
from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.collection.task import CollectionTask
from sb3_walle.off_policy.cuts import can_mark_cuts
from sb3_walle.off_policy.exploring_specs import ExploringSpecs
from sb3_walle.off_policy.replay_buffer import buffer_of
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.random_streams import global_state


def published_weights(
    algorithm: OffPolicyAlgorithm, actor: ActorSpec, plan: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """
    :param actor: the spec of any sampler's actor
    :param plan: how samplers explore
    :return: all that samplers get for a rollout: everything that the actor names
    """
    names = [name for name in actor.weight_names if name not in plan and name != RANDOM_STATE]
    weights = {**policy_weights(algorithm.policy, names), **plan}
    if RANDOM_STATE in actor.weight_names:
        weights[RANDOM_STATE] = global_state(algorithm.action_space)
    return weights


def make_off_policy_collector(
    algorithm: OffPolicyAlgorithm, request: CollectionRequest, specs: ExploringSpecs, plan: Mapping[str, np.ndarray]
) -> tuple[Collector, ActorSpec]:
    """
    :param request: what it asks of its samplers
    :param specs: how to build their actors
    :param plan: how samplers explore in the first rollout
    :return: a collector, with the samplers ready for it; and the spec of an actor
    """
    if algorithm.verbose >= 1:
        print(request.summary(specs.actor))
    actors = specs.of_all_samplers()
    weights = published_weights(algorithm, actors[0], plan)
    client, task = request.env.vec_env.client, _task(algorithm, request)
    return make_collector(request.mode, request.max_policy_lag, client, task, actors, weights), actors[0]


def check_off_policy_memory(algorithm: OffPolicyAlgorithm, request: CollectionRequest, specs: ExploringSpecs) -> None:
    """
    :param request: what it asks of its samplers
    :param specs: how to build their actors
    :raises MemoryError: if there is too little memory for the queues
    """
    spec, state = specs.for_size(), algorithm.policy.state_dict()
    # The actor's share of the policy. The plan of exploration takes next to no memory.
    weights = policy_weights(
        algorithm.policy, [name for name in spec.weight_names if isinstance(state.get(name), th.Tensor)]
    )
    capacity = queue_capacity(request.mode, request.max_policy_lag)
    plan_queues(_task(algorithm, request), request.n_samplers, capacity, spec, weights).check_memory()


def _task(algorithm: OffPolicyAlgorithm, request: CollectionRequest) -> CollectionTask:
    rules = StreamRules(can_cut=can_mark_cuts(buffer_of(algorithm)))
    return request.task(isinstance(algorithm.action_space, spaces.Box), rules)
