"""From an on-policy algorithm to the collector that feeds it."""

from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_walle.algorithm.collection_request import CollectionRequest
from sb3_walle.algorithm.policy_weights import policy_weights
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import plan_queues
from sb3_walle.samplers.actors.choice import actor_specs, choose_actor
from sb3_walle.samplers.actors.numpy_export import export_numpy_actor
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.torch_actor import TorchActorSpec

# In mode "free". What is older, no ratio of probabilities can put right.
DEFAULT_MAX_POLICY_LAG = 1


def published_weights(policy: ActorCriticPolicy, names: Sequence[str]) -> dict[str, np.ndarray]:
    """
    :param policy: a policy, on any device
    :param names: entries of its ``state_dict()``; ``RANDOM_STATE`` may be among them
    :return: these entries as arrays
    """
    weights = policy_weights(policy, (name for name in names if name != RANDOM_STATE))
    return {**weights, RANDOM_STATE: th.get_rng_state().numpy()} if RANDOM_STATE in names else weights


def make_on_policy_collector(algorithm: OnPolicyAlgorithm, request: CollectionRequest) -> Collector:
    """
    :param request: what it asks of its samplers
    :return: a collector, with the samplers ready for it
    """
    policy = algorithm.policy
    actor = choose_actor(request.actor, policy)
    if algorithm.verbose >= 1:
        print(request.summary(actor))
    spec_for = actor_specs(
        actor,
        policy,
        request.seed,
        algorithm.sde_sample_freq if algorithm.use_sde else None,
        request.n_steps,
        request.n_collectors,
        request.shares_random_state,
    )
    actors = [spec_for(sampler) for sampler in range(request.n_samplers)]
    return make_collector(
        request.mode,
        _max_policy_lag(request),
        request.env.vec_env.client,
        request.task(policy.squash_output),
        actors,
        published_weights(policy, actors[0].weight_names),
    )


def check_on_policy_memory(algorithm: OnPolicyAlgorithm, request: CollectionRequest) -> None:
    """
    :param request: what it asks of its samplers
    :raises MemoryError: if there is too little memory for the queues
    """
    policy = algorithm.policy
    spec = _spec_for_size(policy, choose_actor(request.actor, policy), request.shares_random_state)
    capacity = queue_capacity(request.mode, _max_policy_lag(request))
    weights = published_weights(policy, spec.weight_names)
    plan_queues(request.task(policy.squash_output), request.n_samplers, capacity, spec, weights).check_memory()


def _max_policy_lag(request: CollectionRequest) -> int:
    return request.max_policy_lag or DEFAULT_MAX_POLICY_LAG


def _spec_for_size(policy: ActorCriticPolicy, actor: str, shares_random_state: bool) -> ActorSpec:
    """An actor's spec that tells how much memory it takes. No actor can be built from it."""
    if actor == "numpy":
        return export_numpy_actor(policy)
    names = [name for name, value in policy.state_dict().items() if isinstance(value, th.Tensor)]
    if shares_random_state:
        names.append(RANDOM_STATE)
    # Pickling the policy takes long, and what is recorded does not depend on it.
    return TorchActorSpec(b"", tuple(names), policy.action_space, seed=())
