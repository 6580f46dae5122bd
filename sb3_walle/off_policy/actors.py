"""Which actors explore for an off-policy algorithm."""

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.off_policy.exploration import (
    is_epsilon_greedy,
    ladder_noise,
    ladder_rate,
    noise_of_one_env,
    scaled_actions_dtype,
)
from sb3_walle.samplers.actors.choice import streams_of
from sb3_walle.samplers.actors.exploring_actor import ExploringActorSpec
from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_exploring_export import export_numpy_actor, why_not_numpy
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.actors.torch_policy import dump_policy

if TYPE_CHECKING:
    from sb3_walle.off_policy.mixin import AsyncOffPolicyMixin

# What chooses actions, in the policies of SB3 and sb3-contrib: the first of these that a policy has.
ACTING_PARTS = ("actor", "q_net", "quantile_net")


def choose_actor(algorithm: "AsyncOffPolicyMixin") -> str:
    """
    :param algorithm: an algorithm
    :return: ``"numpy"`` or ``"torch"``; for ``"auto"``, NumPy exactly when it chooses actions in the same way
    :raises ValueError: if NumPy was asked for and cannot run the policy
    """
    if algorithm.sampler_actor == "torch":
        return "torch"
    reason = why_not_numpy(algorithm.policy, noise_of_one_env(algorithm.action_noise))
    if algorithm.sampler_actor == "numpy" and reason is not None:
        raise ValueError(f"actor='numpy' cannot explore as this algorithm does: {reason}. Use actor='auto' or 'torch'.")
    return "numpy" if reason is None else "torch"


def exploring_actors(
    algorithm: "AsyncOffPolicyMixin", kind: str, n_samplers: int, seed: int | None, shares_random_state: bool
) -> list[ActorSpec]:
    """
    How to build each sampler's actor, every one with random streams of its own.

    :param algorithm: the algorithm
    :param kind: ``"numpy"`` or ``"torch"``
    :param n_samplers: number of samplers
    :param seed: seed of the streams, ``None`` for fresh entropy
    :param shares_random_state: whether the only actor goes on with the learner's random streams, and the learner with
        the actor's
    :return: the specs
    """
    streams = streams_of(seed, algorithm._n_collectors)
    if kind == "numpy":
        return [_numpy_spec(algorithm, sampler, n_samplers, (*streams, sampler)) for sampler in range(n_samplers)]
    pickled = dump_policy(algorithm.policy)
    return [
        _torch_spec(algorithm, pickled, sampler, n_samplers, (*streams, sampler), shares_random_state)
        for sampler in range(n_samplers)
    ]


def spec_for_size(algorithm: "AsyncOffPolicyMixin", kind: str, shares_random_state: bool) -> ActorSpec:
    """
    :param algorithm: an algorithm
    :param kind: ``"numpy"`` or ``"torch"``
    :param shares_random_state: as for :func:`exploring_actors`
    :return: an actor's spec that tells how much memory it takes. No actor can be built from it
    """
    if kind == "numpy":
        return _numpy_spec(algorithm, 0, 2, ())
    # Pickling the policy takes long, and what is recorded does not depend on it.
    return _torch_spec(algorithm, b"", 0, 2, (), shares_random_state)


def _numpy_spec(
    algorithm: "AsyncOffPolicyMixin", sampler: int, n_samplers: int, seed: tuple[int, ...]
) -> NumPyActorSpec:
    noise, rate = _noise(algorithm, sampler, n_samplers), _fixed_rate(algorithm, sampler, n_samplers)
    return export_numpy_actor(algorithm.policy, noise, rate, seed)


def _torch_spec(
    algorithm: "AsyncOffPolicyMixin",
    pickled: bytes,
    sampler: int,
    n_samplers: int,
    seed: tuple[int, ...],
    shares_random_state: bool,
) -> ExploringActorSpec:
    noise = _noise(algorithm, sampler, n_samplers)
    return ExploringActorSpec(
        pickled,
        acting_names(algorithm.policy),
        algorithm.action_space,
        seed,
        scaled_actions_dtype(algorithm.action_space, noise),
        noise,
        is_epsilon_greedy(algorithm),
        _fixed_rate(algorithm, sampler, n_samplers),
        algorithm.sde_sample_freq if algorithm.use_sde else None,
        shares_random_state,
    )


def _noise(algorithm: "AsyncOffPolicyMixin", sampler: int, n_samplers: int) -> ActionNoise | None:
    if algorithm.noise_ladder is None or is_epsilon_greedy(algorithm):
        return noise_of_one_env(algorithm.action_noise)
    return ladder_noise(sampler, n_samplers, int(np.prod(algorithm.action_space.shape or ())))


def _fixed_rate(algorithm: "AsyncOffPolicyMixin", sampler: int, n_samplers: int) -> float | None:
    if algorithm.noise_ladder is None or not is_epsilon_greedy(algorithm):
        return None
    return ladder_rate(sampler, n_samplers)


def acting_names(policy: BasePolicy) -> tuple[str, ...]:
    """
    :param policy: a policy
    :return: those tensors of its ``state_dict()`` that decide its actions: critics and targets do not. All of a policy
        that chooses them in its own way
    """
    names = [name for name, value in policy.state_dict().items() if isinstance(value, th.Tensor)]
    part = next((part for part in ACTING_PARTS if isinstance(getattr(policy, part, None), th.nn.Module)), None)
    if part is None or not _predicts_as_known(policy):
        return tuple(names)
    return tuple(name for name in names if name.startswith(f"{part}."))


def _predicts_as_known(policy: BasePolicy) -> bool:
    owner = next(base for base in type(policy).__mro__ if "_predict" in vars(base))
    return owner.__module__.split(".")[0] in ("stable_baselines3", "sb3_contrib")
