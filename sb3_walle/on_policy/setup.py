"""From an algorithm to the collector that feeds it."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import make_collector, queue_capacity
from sb3_walle.collection.queues import REMEDY, plan_queues
from sb3_walle.collection.task import CollectionTask
from sb3_walle.normalization import Normalization
from sb3_walle.samplers.actors.choice import actor_specs, choose_actor
from sb3_walle.samplers.actors.numpy_export import export_numpy_actor
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.torch_actor import TorchActorSpec
from sb3_walle.samplers.infos import InfoSelection, select_infos
from sb3_walle.wrappers import WrappedSamplers, wrapped_samplers

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
    shares_random_state = _shares_random_state(algorithm, env)
    spec_for = actor_specs(actor, policy, seed, sde_sample_freq, n_steps, algorithm._n_collectors, shares_random_state)
    actors = [spec_for(sampler) for sampler in range(samplers.n_samplers)]
    task = _task(algorithm, env, n_steps, algorithm._infos)
    weights = policy_weights(policy, actors[0].weight_names)
    return make_collector(algorithm.mode, algorithm.max_policy_lag, samplers.samplers, task, actors, weights)


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
    weights = policy_weights(algorithm.policy, spec.weight_names)
    capacity = queue_capacity(algorithm.mode, algorithm.max_policy_lag)
    plan_queues(task, env.samplers.n_samplers, capacity, spec, weights).check_memory()


@contextlib.contextmanager
def memory_advice() -> Iterator[None]:
    """Say what to change where there is too little memory for what SB3 keeps in it, such as the rollout buffer."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{str(error).rstrip('.')}. {REMEDY}") from error


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
