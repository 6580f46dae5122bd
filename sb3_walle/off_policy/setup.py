"""From an off-policy algorithm to the collector that feeds it."""

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.algorithm.weights import policy_weights
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import plan_queues
from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.collection.task import CollectionTask
from sb3_walle.normalization import Normalization
from sb3_walle.off_policy.actors import choose_actor, exploring_actors, spec_for_size
from sb3_walle.off_policy.cuts import can_mark_cuts
from sb3_walle.off_policy.exploration import planned_exploration
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.random_streams import global_state
from sb3_walle.samplers.infos import InfoSelection, select_infos
from sb3_walle.wrappers import WrappedSamplers, wrapped_samplers

if TYPE_CHECKING:
    from sb3_walle.off_policy.mixin import AsyncOffPolicyMixin

# Steps of an episode for which exploration is planned, where a rollout is made of episodes.
N_STEPS_OF_EPISODES = 4096


def published_weights(algorithm: "AsyncOffPolicyMixin", actor: ActorSpec, n_steps_ahead: int) -> dict[str, np.ndarray]:
    """
    What samplers are told for a rollout.

    :param algorithm: the algorithm
    :param actor: the spec of any sampler's actor
    :param n_steps_ahead: how many steps of each environment come before that rollout
    :return: everything that the actor names
    """
    plan = planned_exploration(algorithm, algorithm._n_trainings, n_steps_ahead, _n_planned(algorithm))
    names = [name for name in actor.weight_names if name not in plan and name != RANDOM_STATE]
    weights = {**policy_weights(algorithm.policy, names), **plan}
    if RANDOM_STATE in actor.weight_names:
        weights[RANDOM_STATE] = global_state(algorithm.action_space)
    return weights


def _n_planned(algorithm: "AsyncOffPolicyMixin") -> int:
    # With a policy lag, the first weights are there for more than one rollout.
    return N_STEPS_OF_EPISODES if algorithm.collects_episodes else 2 * algorithm._n_steps_per_rollout()


def set_up_collector(
    algorithm: "AsyncOffPolicyMixin", env: WrappedSamplers, n_steps: int, seed: int | None
) -> tuple[Collector, ActorSpec]:
    """
    :param algorithm: the algorithm
    :param env: its samplers, and what is around them
    :param n_steps: steps of each environment in a rollout
    :param seed: seed of the samplers' random streams, ``None`` for fresh entropy
    :return: a collector that works in the algorithm's mode, with the samplers ready for it; and the spec of an actor
    """
    samplers = env.samplers
    kind = choose_actor(algorithm)
    if algorithm.verbose >= 1:
        print(
            f"Collecting with {samplers.n_samplers} samplers, environments of each: {samplers.envs_per_sampler}, "
            f"mode: {algorithm.mode}, actor: {kind}"
        )
    actors = exploring_actors(algorithm, kind, samplers.n_samplers, seed, shares_random_state(algorithm, env))
    task = _task(algorithm, env, n_steps, algorithm._infos)
    weights = published_weights(algorithm, actors[0], n_steps_ahead=0)
    collector = make_collector(algorithm.mode, algorithm.max_policy_lag, samplers.samplers, task, actors, weights)
    return collector, actors[0]


def check_memory(algorithm: "AsyncOffPolicyMixin") -> None:
    """
    Check that there is memory for the queues, long before they are made.

    :param algorithm: the algorithm; nothing is checked if its environments are not in samplers
    :raises MemoryError: if too little is left
    """
    env = wrapped_samplers(algorithm.env)
    if env is None:
        return
    # Callbacks, which are not known yet, can only ask for more.
    infos = select_infos(algorithm.info_keys, callbacks_may_look=False)
    task = _task(algorithm, env, algorithm._n_steps_per_rollout(), infos)
    spec = spec_for_size(algorithm, choose_actor(algorithm), shares_random_state(algorithm, env))
    capacity = queue_capacity(algorithm.mode, algorithm.max_policy_lag)
    plan_queues(task, env.samplers.n_samplers, capacity, spec, _tensors(algorithm.policy, spec)).check_memory()


def _tensors(policy: BasePolicy, spec: ActorSpec) -> dict[str, np.ndarray]:
    """The actor's share of the policy. What is published besides takes next to no memory."""
    state = policy.state_dict()
    return policy_weights(policy, [name for name in spec.weight_names if isinstance(state.get(name), th.Tensor)])


def _task(algorithm: "AsyncOffPolicyMixin", env: WrappedSamplers, n_steps: int, infos: InfoSelection) -> CollectionTask:
    return CollectionTask(
        env.observation_space,
        env.samplers.envs_per_sampler,
        n_steps,
        isinstance(algorithm.action_space, spaces.Box),
        env.layers,
        None if env.vec_normalize is None else Normalization(env.vec_normalize),
        infos,
        algorithm.check_nan,
        StreamRules(can_cut=can_mark_cuts(algorithm._buffer)),
    )


def shares_random_state(algorithm: "AsyncOffPolicyMixin", env: WrappedSamplers) -> bool:
    """
    :param algorithm: the algorithm
    :param env: its samplers, and what is around them
    :return: whether the one sampler and the learner draw what SB3's one process draws
    """
    return algorithm.mode == "sync" and env.samplers.n_samplers == 1
