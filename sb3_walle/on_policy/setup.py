"""From an algorithm to the collector that feeds it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_walle.algorithm.weights import policy_weights
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import plan_queues
from sb3_walle.collection.task import CollectionTask
from sb3_walle.normalization import Normalization
from sb3_walle.on_policy.rollout_size import large_rollout_advice
from sb3_walle.samplers.actors.choice import actor_specs, choose_actor
from sb3_walle.samplers.actors.numpy_export import export_numpy_actor
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.torch_actor import TorchActorSpec
from sb3_walle.samplers.infos import InfoSelection, select_infos
from sb3_walle.wrappers import WrappedSamplers, wrapped_samplers

if TYPE_CHECKING:
    from sb3_walle.on_policy.mixin import AsyncOnPolicyMixin


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
    actor = choose_actor(algorithm.sampler_actor, policy)
    if algorithm.verbose >= 1:
        print(
            f"Collecting with {samplers.n_samplers} samplers, environments of each: {samplers.envs_per_sampler}, "
            f"mode: {algorithm.mode}, actor: {actor}"
        )
        advice = large_rollout_advice(algorithm)
        if advice is not None:
            print(advice)
    sde_sample_freq = algorithm.sde_sample_freq if algorithm.use_sde else None
    shares_random_state = _shares_random_state(algorithm, env)
    spec_for = actor_specs(actor, policy, seed, sde_sample_freq, n_steps, algorithm._n_collectors, shares_random_state)
    actors = [spec_for(sampler) for sampler in range(samplers.n_samplers)]
    task = _task(algorithm, env, n_steps, algorithm._infos)
    weights = published_weights(policy, actors[0].weight_names)
    return make_collector(algorithm.mode, _max_policy_lag(algorithm), samplers.samplers, task, actors, weights)


def check_memory(algorithm: "AsyncOnPolicyMixin", actor: str) -> None:
    """
    Check that there is memory for the queues, long before they are made.

    :param algorithm: the algorithm; nothing is checked if its environments are not in samplers
    :param actor: what is going to run its policy, ``"numpy"`` or ``"torch"``
    :raises MemoryError: if too little is left
    """
    env = wrapped_samplers(algorithm.env)
    if env is None:
        return
    # Callbacks, which are not known yet, can only ask for more.
    infos = select_infos(algorithm.info_keys, callbacks_may_look=False)
    task = _task(algorithm, env, algorithm.n_steps, infos)
    spec = _spec_for_size(algorithm.policy, actor, _shares_random_state(algorithm, env))
    weights = published_weights(algorithm.policy, spec.weight_names)
    capacity = queue_capacity(algorithm.mode, _max_policy_lag(algorithm))
    plan_queues(task, env.samplers.n_samplers, capacity, spec, weights).check_memory()


def _max_policy_lag(algorithm: "AsyncOnPolicyMixin") -> int:
    return algorithm.max_policy_lag or DEFAULT_MAX_POLICY_LAG


def _task(algorithm: "AsyncOnPolicyMixin", env: WrappedSamplers, n_steps: int, infos: InfoSelection) -> CollectionTask:
    return CollectionTask(
        env.observation_space,
        env.samplers.envs_per_sampler,
        n_steps,
        algorithm.policy.squash_output,
        env.layers,
        None if env.vec_normalize is None else Normalization(env.vec_normalize),
        infos,
        algorithm.check_nan,
    )


def _shares_random_state(algorithm: "AsyncOnPolicyMixin", env: WrappedSamplers) -> bool:
    """One sampler that waits for the learner: together they draw what SB3's one process draws."""
    return algorithm.mode == "sync" and env.samplers.n_samplers == 1


def _spec_for_size(policy: ActorCriticPolicy, actor: str, shares_random_state: bool) -> ActorSpec:
    """An actor's spec that tells how much memory it takes. No actor can be built from it."""
    if actor == "numpy":
        return export_numpy_actor(policy, seed=0)
    names = [name for name, value in policy.state_dict().items() if isinstance(value, th.Tensor)]
    if shares_random_state:
        names.append(RANDOM_STATE)
    # Pickling the policy takes long, and what is recorded does not depend on it.
    return TorchActorSpec(b"", tuple(names), policy.action_space, seed=())
