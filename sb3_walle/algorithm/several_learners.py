"""Which updates several learners can share, and what they need."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.backends.limits import available_cpus


def check_n_learners(n_learners: int) -> None:
    """
    :raises TypeError: if it is no number
    :raises ValueError: if it is below 1
    """
    if isinstance(n_learners, bool) or not isinstance(n_learners, int):
        raise TypeError(f"n_learners must be an integer, got {n_learners!r}")
    if n_learners < 1:
        raise ValueError(f"n_learners must be at least 1, got {n_learners}")


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
