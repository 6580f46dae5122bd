"""Which updates several learners can share, how many are worth it, and what they need."""

from typing import Literal, TypeAlias, TypeGuard

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.algorithm.learner_load import is_busy, is_for_threads, n_parameters
from sb3_walle.backends.limits import available_cpus

#: the user's ``n_learners=``
NLearners: TypeAlias = int | Literal["auto"]

# Parameters times samples of a minibatch: a learner computes for some 0.4 ms. With less, learners wait for each other
# longer than they gain.
WORTH_A_LEARNER = 4e6


def check_n_learners(n_learners: NLearners) -> None:
    """
    :raises TypeError: if it is neither a number nor "auto"
    :raises ValueError: if it is below 1
    """
    if n_learners == "auto":
        return
    if isinstance(n_learners, bool) or not isinstance(n_learners, int):
        raise TypeError(f'n_learners must be an integer or "auto", got {n_learners!r}')
    if n_learners < 1:
        raise ValueError(f"n_learners must be at least 1, got {n_learners}")


def are_several(n_learners: NLearners) -> TypeGuard[int]:
    """Whether the user asks for more than one learner."""
    return n_learners != "auto" and n_learners > 1


def likely_n_learners(policy: BasePolicy, batch_size: int, samples_per_step: float, n_samplers: int) -> int:
    """
    How many learners are likely to be fastest: so many that each has :data:`WORTH_A_LEARNER` to do, on cores that are
    free; and one where a single learner has several threads, which are faster for minibatches of their size.

    :param policy: the policy
    :param batch_size: samples of a minibatch
    :param samples_per_step: samples that are learned from for each step of an environment
    :param n_samplers: number of samplers that work at the same time
    """
    if th.get_num_threads() > 1 and is_for_threads(policy, batch_size):
        return 1
    n_cpus = available_cpus()
    # Samplers that mostly wait for the learner leave it half of the cores, as they do for threads.
    least = min(n_cpus, max(2, n_cpus // 2)) if is_busy(policy, samples_per_step) else 1
    n_worth_it = int(n_parameters(policy) * batch_size / WORTH_A_LEARNER)
    return max(1, min(n_worth_it, max(n_cpus - n_samplers, least)))


def check_shareable(algorithm: BaseAlgorithm, n_learners: int, learner: str, has_compiled_update: bool) -> None:
    """
    :param n_learners: number of learners, above 1
    :param learner: the user's ``learner=``
    :param has_compiled_update: whether the algorithm has one
    :raises ValueError: if it is known already that they cannot share the updates
    """
    name, remedy = type(algorithm).__name__, "Use n_learners=1."
    if not has_compiled_update:
        raise ValueError(f"n_learners={n_learners} shares compiled updates, and {name} has none. {remedy}")
    if learner == "eager":
        raise ValueError(
            f"n_learners={n_learners} shares compiled updates, and learner='eager' makes none. {remedy[:-1]}, or "
            "learner='auto' or 'compiled'."
        )
    if algorithm.device.type != "cpu":
        raise ValueError(
            f"n_learners={n_learners} shares updates among CPU cores, and the policy is on '{algorithm.device}'. "
            f"{remedy[:-1]}, or device='cpu'."
        )


def advice_on_cpus(n_learners: int, n_samplers: int, mode: str) -> str | None:
    """
    :param n_learners: number of learners, above 1
    :param n_samplers: number of samplers on this machine, which work at the same time in other modes than ``"sync"``
    :param mode: the mode
    :return: what the user should know if they are more than there are CPUs
    """
    n_cpus = available_cpus()
    if n_learners > n_cpus:
        return (
            f"n_learners={n_learners} on {n_cpus} CPUs: learners wait for each other in every minibatch, so more of "
            f"them than CPUs are slower than n_learners={n_cpus}"
        )
    if mode == "sync" or n_samplers + n_learners <= n_cpus:
        return None
    remedy = f"n_samplers={n_cpus - n_learners}" if n_cpus > n_learners else "mode='sync', or n_learners=1,"
    return (
        f"{n_samplers} samplers and {n_learners} learners work at the same time on {n_cpus} CPUs. Unless samplers "
        f"mostly wait for their environments, {remedy} is likely to be faster"
    )
