"""Which updates several learners can share."""

from stable_baselines3.common.base_class import BaseAlgorithm


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
