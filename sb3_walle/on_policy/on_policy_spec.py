"""From an on-policy algorithm to what its samplers collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.algorithm.collection_request import CollectionRequest, CollectionSpec
from sb3_walle.algorithm.policy_weights import policy_weights
from sb3_walle.on_policy.rollout_choice import EPISODES, whole_episodes
from sb3_walle.samplers.actors.choice import ActorKinds, actor_specs, choose_actor
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec


def published_weights(policy: BasePolicy, names: Sequence[str]) -> dict[str, np.ndarray]:
    """:return: entries of the policy's ``state_dict()``, and ``RANDOM_STATE`` if it is among the names"""
    weights = policy_weights(policy, (name for name in names if name != RANDOM_STATE))
    return {**weights, RANDOM_STATE: th.get_rng_state().numpy()} if RANDOM_STATE in names else weights


def on_policy_spec(algorithm: Any, request: CollectionRequest, for_size: bool, kinds: ActorKinds) -> CollectionSpec:
    """
    :param algorithm: an asynchronous on-policy algorithm
    :param for_size: whether the spec only tells how much memory is needed
    :param kinds: the actors that can run the algorithm's policies
    """
    policy = algorithm.policy
    actor = choose_actor(request.actor, policy, kinds)
    if for_size:
        actors = [_actor_for_size(policy, actor, request.shares_random_state, kinds)]
    else:
        spec_for = actor_specs(
            actor,
            policy,
            request.seed,
            algorithm.sde_sample_freq if algorithm.use_sde else None,
            request.n_steps,
            request.n_collectors,
            request.shares_random_state,
            kinds,
        )
        actors = [spec_for(sampler) for sampler in range(request.n_samplers)]
    weights = published_weights(policy, actors[0].weight_names)
    task = request.task(policy.squash_output)
    if algorithm.rollout == EPISODES:
        task = whole_episodes(task, request.env, algorithm.target_steps, algorithm.max_episode_steps)
    return CollectionSpec(actor, actors, task, weights)


def _actor_for_size(policy: BasePolicy, actor: str, shares_random_state: bool, kinds: ActorKinds) -> ActorSpec:
    if actor == "numpy":
        return kinds.numpy(policy)
    names = [name for name, value in policy.state_dict().items() if isinstance(value, th.Tensor)]
    if shares_random_state:
        names.append(RANDOM_STATE)
    # Pickling the policy takes long, and what is recorded does not depend on it.
    return kinds.torch(b"", tuple(names), policy.action_space, seed=())
