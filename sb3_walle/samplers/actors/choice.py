"""Which actor runs a policy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.samplers.actors.numpy_export import check_same_logits, export_numpy_actor
from sb3_walle.samplers.actors.numpy_parts import NoNumPyVersion
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, ActorSpec
from sb3_walle.samplers.actors.torch_actor import TorchActorSpec
from sb3_walle.samplers.actors.torch_policy import dump_policy

ACTORS = ("auto", "torch", "numpy")

SpecForSampler: TypeAlias = Callable[[int], ActorSpec]


@dataclass(frozen=True)
class ActorKinds:
    """
    The actors that can run the policies of an algorithm.

    :param torch: makes the spec of the one that runs the policy itself, from the arguments of :class:`TorchActorSpec`
    :param numpy: makes the spec of the one that runs a policy in NumPy, or raises ``NoNumPyVersion``
    :param check: raises ``NoNumPyVersion`` if that one does not compute what the policy does
    """

    torch: Callable[..., TorchActorSpec] = TorchActorSpec
    numpy: Callable[[BasePolicy], Any] = export_numpy_actor
    check: Callable[[Any, Any], None] = check_same_logits

    def why_not_numpy(self, policy: BasePolicy) -> str | None:
        """:return: which part of a policy NumPy cannot run, as a clause ("it uses gSDE"); ``None`` if there is none"""
        try:
            self.check(self.numpy(policy), policy)
        except NoNumPyVersion as reason:
            return str(reason)
        return None


def check_actor(actor: str) -> None:
    """
    :raises ValueError: if there is no such actor
    """
    if actor not in ACTORS:
        raise ValueError(f"actor must be one of {ACTORS}, got {actor!r}")


def choose_actor(actor: str, policy: BasePolicy, kinds: ActorKinds = ActorKinds()) -> str:
    """
    :param actor: what the user asked for, one of ``ACTORS``
    :param policy: the policy to run
    :param kinds: what can run it
    :return: ``"numpy"`` or ``"torch"``; for ``"auto"``, NumPy exactly when it computes the same distribution
    :raises ValueError: if NumPy was asked for and cannot run this policy
    """
    if actor == "torch":
        return "torch"
    reason = kinds.why_not_numpy(policy)
    if actor == "numpy" and reason is not None:
        raise ValueError(f"actor='numpy' cannot run this policy: {reason}. Use actor='auto' or actor='torch'.")
    return "torch" if reason is not None else "numpy"


def streams_of(seed: int | None, incarnation: int) -> tuple[int, ...]:
    """
    :param seed: seed of all random streams, ``None`` for fresh entropy
    :param incarnation: how often actors were made from this seed before; their streams must not begin again
    :return: what the seeds of all samplers have in common; the number of the sampler follows
    """
    entropy = np.random.SeedSequence(seed).entropy
    return (*(int(word) for word in np.atleast_1d(np.asarray(entropy, dtype=object))), incarnation)


def actor_specs(
    actor: str,
    policy: BasePolicy,
    seed: int | None,
    sde_sample_freq: int | None = None,
    n_rollout_steps: int = 1,
    incarnation: int = 0,
    shares_random_state: bool = False,
    kinds: ActorKinds = ActorKinds(),
) -> SpecForSampler:
    """
    How to build each sampler's actor, every one with a random stream of its own.

    :param actor: ``"numpy"`` or ``"torch"``
    :param seed: seed of the streams, ``None`` for fresh entropy
    :param sde_sample_freq: the algorithm's, ``None`` without gSDE
    :param n_rollout_steps: the algorithm's ``n_steps``
    :param incarnation: how often actors were made from this seed before; their streams must not begin again
    :param shares_random_state: whether the torch actor continues with the learner's random stream, and the learner with
        the actor's, as in SB3's one process; only for a single sampler
    :param kinds: what can run the policy
    :return: a function from the number of a sampler to its actor's spec
    """
    streams = streams_of(seed, incarnation)
    if actor == "numpy":
        spec = kinds.numpy(policy)
        return lambda sampler: replace(spec, seed=(*streams, sampler))
    pickled = dump_policy(policy)
    weight_names = tuple(name for name, value in policy.state_dict().items() if isinstance(value, th.Tensor))
    if shares_random_state:
        weight_names = (*weight_names, RANDOM_STATE)

    def torch_spec(sampler: int) -> ActorSpec:
        seed = (*streams, sampler)
        return kinds.torch(pickled, weight_names, policy.action_space, seed, sde_sample_freq, n_rollout_steps)

    return torch_spec
