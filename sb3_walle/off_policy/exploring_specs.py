"""Which actors explore for an off-policy algorithm."""

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.algorithm.collection_request import CollectionRequest
from sb3_walle.off_policy.exploration_plan import (
    is_epsilon_greedy,
    ladder_noise,
    ladder_rate,
    noise_of_one_env,
    scaled_actions_dtype,
)
from sb3_walle.samplers.actors.choice import streams_of
from sb3_walle.samplers.actors.exploring_actor import ExploringActorSpec
from sb3_walle.samplers.actors.numpy_exploring_export import export_numpy_actor, why_not_numpy
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.actors.torch_policy import dump_policy

# What chooses actions, in the policies of SB3 and sb3-contrib: the first of these that a policy has.
ACTING_PARTS = ("actor", "q_net", "quantile_net")


def choose_actor(actor: str, algorithm: OffPolicyAlgorithm) -> str:
    """
    :param actor: what the user asked for
    :return: ``"numpy"`` or ``"torch"``; for ``"auto"``, NumPy exactly when it chooses actions in the same way
    :raises ValueError: if NumPy was asked for and cannot run the policy
    """
    if actor == "torch":
        return "torch"
    reason = why_not_numpy(algorithm.policy, noise_of_one_env(algorithm.action_noise))
    if actor == "numpy" and reason is not None:
        raise ValueError(f"actor='numpy' cannot explore as this algorithm does: {reason}. Use actor='auto' or 'torch'.")
    return "numpy" if reason is None else "torch"


class ExploringSpecs:
    """How to build the actors of an off-policy algorithm, each of which has random streams of its own."""

    def __init__(self, algorithm: OffPolicyAlgorithm, request: CollectionRequest, noise_ladder: str | None) -> None:
        self._algorithm, self._request = algorithm, request
        self._has_ladder = noise_ladder is not None
        #: ``"numpy"`` or ``"torch"``
        self.actor = choose_actor(request.actor, algorithm)

    def of_all_samplers(self) -> list[ActorSpec]:
        """:return: one spec for each sampler"""
        request = self._request
        streams = streams_of(request.seed, request.n_collectors)
        pickled = b"" if self.actor == "numpy" else dump_policy(self._algorithm.policy)
        return [
            self._spec(pickled, sampler, request.n_samplers, (*streams, sampler))
            for sampler in range(request.n_samplers)
        ]

    def for_size(self) -> ActorSpec:
        """:return: a spec that tells how much memory an actor takes. No actor can be built from it"""
        # Pickling the policy takes long, and what is recorded does not depend on it.
        return self._spec(b"", 0, 2, ())

    def _spec(self, pickled: bytes, sampler: int, n_samplers: int, seed: tuple[int, ...]) -> ActorSpec:
        algorithm = self._algorithm
        noise, fixed_rate = noise_of_one_env(algorithm.action_noise), None
        if self._has_ladder and is_epsilon_greedy(algorithm):
            fixed_rate = ladder_rate(sampler, n_samplers)
        elif self._has_ladder:
            noise = ladder_noise(sampler, n_samplers, int(np.prod(algorithm.action_space.shape or ())))
        if self.actor == "numpy":
            return export_numpy_actor(algorithm.policy, noise, fixed_rate, seed)
        return ExploringActorSpec(
            pickled,
            acting_names(algorithm.policy),
            algorithm.action_space,
            seed,
            scaled_actions_dtype(algorithm.action_space, noise),
            noise,
            is_epsilon_greedy(algorithm),
            fixed_rate,
            algorithm.sde_sample_freq if algorithm.use_sde else None,
            self._request.shares_random_state,
        )


def acting_names(policy: BasePolicy) -> tuple[str, ...]:
    """
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
