"""From an algorithm to the collector that feeds it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_walle.collection.collector import CollectionTask, Collector
from sb3_walle.collection.modes import make_collector
from sb3_walle.normalization import Normalization
from sb3_walle.samplers.actors.choice import actor_specs, choose_actor
from sb3_walle.samplers.actors.protocol import RANDOM_STATE
from sb3_walle.wrappers import WrappedSamplers

if TYPE_CHECKING:
    from sb3_walle.on_policy.mixin import AsyncOnPolicyMixin


def policy_weights(policy: ActorCriticPolicy, names: Iterable[str]) -> dict[str, np.ndarray]:
    """
    :param policy: a policy, on any device
    :param names: entries of its ``state_dict()``; ``RANDOM_STATE`` may be among them
    :return: these entries as arrays, which share the policy's memory where it is on the CPU
    """
    state = policy.state_dict()
    tensors = {name: th.get_rng_state() if name == RANDOM_STATE else state[name] for name in names}
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def set_up_collector(
    algorithm: "AsyncOnPolicyMixin", env: WrappedSamplers, n_steps: int, seed: int | None
) -> Collector:
    """
    :param algorithm: the algorithm
    :param env: its samplers, and what is around them
    :param n_steps: steps of each environment in a rollout
    :param seed: seed of the samplers' random streams, ``None`` for fresh entropy
    :return: a collector that works in the algorithm's mode, with the samplers ready for it
    """
    policy, samplers = algorithm.policy, env.samplers
    actor = choose_actor(algorithm.actor, policy)
    if algorithm.verbose >= 1:
        print(
            f"Collecting with {samplers.n_samplers} samplers, environments of each: {samplers.envs_per_sampler}, "
            f"mode: {algorithm.mode}, actor: {actor}"
        )
    sde_sample_freq = algorithm.sde_sample_freq if algorithm.use_sde else None
    # One sampler that waits for the learner: together they draw what SB3's one process draws.
    shares_random_state = algorithm.mode == "sync" and samplers.n_samplers == 1
    spec_for = actor_specs(actor, policy, seed, sde_sample_freq, n_steps, algorithm._n_collectors, shares_random_state)
    actors = [spec_for(sampler) for sampler in range(samplers.n_samplers)]
    task = CollectionTask(
        env.observation_space,
        samplers.envs_per_sampler,
        n_steps,
        policy.squash_output,
        env.layers,
        None if env.vec_normalize is None else Normalization(env.vec_normalize),
        algorithm._infos,
        algorithm.check_nan,
    )
    weights = policy_weights(policy, actors[0].weight_names)
    return make_collector(algorithm.mode, algorithm.max_policy_lag, samplers.samplers, task, actors, weights)
