"""Environments that take the place of an algorithm's present ones."""

from contextlib import AbstractContextManager
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.envs.env_sources import EnvSource, in_samplers
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.sb3_private import vec_normalize_of
from sb3_walle.user_warning import warn_user


def in_samplers_like_before(algorithm: BaseAlgorithm, env: EnvSource) -> AbstractContextManager[VecEnv | None]:
    """
    Put environments into samplers, for good unless the block raises an exception.

    :param env: as for :func:`~sb3_walle.envs.env_sources.in_samplers`; where it does not say how many environments
        there are, as many as the algorithm has now, in as many samplers
    :return: see :func:`~sb3_walle.envs.env_sources.in_samplers`
    """
    present = None if algorithm.env is None else algorithm.env.unwrapped
    choices: dict[str, Any] = {"n_samplers": algorithm.n_envs}
    if isinstance(present, SamplerVecEnv):
        choices = {
            "n_samplers": present.n_samplers,
            "envs_per_sampler": present.envs_per_sampler,
            "backend": present.backend,
            "supervision": present.client.supervision,
        }
    if isinstance(env, VecEnv):
        # It says itself how many there are, and what happens when they fail.
        choices = {name: choice for name, choice in choices.items() if name == "backend"}
    return in_samplers(env, **choices)


def warn_of_missing_normalization(algorithm: BaseAlgorithm, is_normalized: bool) -> None:
    """
    Warn if a policy does not find the normalised environments any more that it has learned in.

    :param algorithm: an algorithm, with other environments than before
    :param is_normalized: whether its policy has learned from normalised observations or rewards
    """
    if is_normalized and algorithm.env is not None and vec_normalize_of(algorithm) is None:
        warn_user(
            "The policy has learned in environments inside of a VecNormalize, but these are in none. "
            "Wrap them with the statistics that belong to the policy: VecNormalize.load(path, SamplerVecEnv(...))."
        )
