"""How many samples an update learns from: ``n_steps`` is per environment, and there may be many of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from typing import Any

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

# From here on an algorithm whose n_steps was chosen for one environment updates its policy rarely.
LARGE_ROLLOUT = 10_000


def steps_per_env(n_samples: int, n_envs: int, batch_size: int) -> int:
    """
    Divide a rollout among environments.

    :param n_samples: samples of the rollout, all environments together
    :return: ``n_steps`` with which a rollout has about as many samples: those of whole minibatches, if it has as many
    """
    steps_of_whole_minibatches = batch_size // gcd(n_envs, batch_size)
    steps = round(n_samples / n_envs / steps_of_whole_minibatches) * steps_of_whole_minibatches
    return steps or max(1, n_samples // n_envs)


def minibatches_of_several(n_samples: int, batch_size: int) -> int:
    """
    :param n_samples: samples of the rollout
    :return: the batch size, or the next larger one with which the last minibatch is not a single sample
    """
    sizes = range(batch_size, max(batch_size, n_samples) + 1)
    return next((size for size in sizes if n_samples % size != 1), batch_size)


@contextmanager
def single_advantage_kept(algorithm: Any, n_samples: int) -> Iterator[None]:
    """
    Around an update of an algorithm that normalises a single advantage, too: one number has no deviation, and what is
    divided by it is NaN. As in SB3's PPO, a single one stays as it is.

    :param algorithm: an on-policy algorithm that has ``normalize_advantage``
    :param n_samples: samples that the advantages are normalised over
    """
    normalizes = algorithm.normalize_advantage
    algorithm.normalize_advantage = normalizes and n_samples > 1
    try:
        yield
    finally:
        algorithm.normalize_advantage = normalizes


def large_rollout_advice(algorithm: OnPolicyAlgorithm, default_n_steps: int | None) -> str | None:
    """
    :param default_n_steps: ``n_steps`` of an algorithm that was made without, ``None`` if it was given
    :return: one line for a user who may not know how large rollouts are; ``None`` if they are not, or were asked for
    """
    n_steps, n_envs = algorithm.n_steps, algorithm.n_envs
    if n_steps != default_n_steps or n_steps * n_envs < LARGE_ROLLOUT:
        return None
    divided = steps_per_env(n_steps, n_envs, getattr(algorithm, "batch_size", 1))
    return (
        f"n_steps is per environment, and {n_steps} by default: each update learns from {n_steps} x {n_envs} = "
        f"{n_steps * n_envs:,} samples. Divide it by the number of environments (n_steps={divided}) to update as often "
        "as SB3 with one"
    )
