"""What an iteration collects: steps or whole episodes, as the user chooses."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from sb3_walle.collection.task import CollectionTask, EpisodeRules
from sb3_walle.envs.env_sources import AUTO
from sb3_walle.envs.wrappers import WrappedSamplers

STEPS, EPISODES = ROLLOUTS = ("steps", "episodes")
# How long an episode probably is where no limit tells.
TYPICAL_STEPS = 1_000


def check_rollout(algorithm: Any) -> None:
    """
    Check what the user chose.

    :param algorithm: an asynchronous on-policy algorithm
    :raises ValueError: if there is no such kind of rollout, the algorithm cannot collect it, not in its mode, or a
        number is wrong or does not go with it
    """
    rollout, name = algorithm.rollout, type(algorithm).__name__
    if rollout not in ROLLOUTS:
        raise ValueError(f"rollout must be one of {ROLLOUTS}, got {rollout!r}")
    for argument in ("target_steps", "max_episode_steps"):
        number = getattr(algorithm, argument)
        if number is None:
            continue
        if rollout == STEPS:
            raise ValueError(f"{argument}={number!r} is for rollout='episodes'. Add that, or leave {argument} out.")
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{argument} must be an integer of at least 1, got {number!r}")
    if rollout == STEPS:
        return
    if rollout not in algorithm.supported_rollouts:
        raise ValueError(f"{name} cannot collect whole episodes. Use rollout='steps', which is the default.")
    if algorithm.target_steps is None:
        raise ValueError(
            "rollout='episodes' needs target_steps: about how many steps an iteration collects, all samplers together, "
            "as in target_steps=20_000."
        )
    if algorithm.mode == "free":
        raise ValueError(
            "rollout='episodes' awaits all episodes that were dealt to samplers, and mode='free' awaits none. "
            "Use mode='pipelined' or 'sync', or rollout='steps'."
        )


def one_env_each(positional: Mapping[str, Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """
    :param positional: the positional arguments of the constructor of an algorithm that collects whole episodes, by name
    :param keywords: its keyword arguments
    :return: the same keyword arguments, with as many samplers as environments where their number is left open
    :raises ValueError: if an argument is for rollouts of steps only
    """
    given = {**positional, **keywords}
    if "n_steps" in given:
        raise ValueError(
            f"n_steps={given['n_steps']!r} was given with rollout='episodes', whose episodes have any number of "
            "steps. Leave n_steps out: target_steps says about how many an iteration has, all samplers together."
        )
    _check_envs_per_sampler(given.get("envs_per_sampler") or 1)
    if given.get("n_envs") is not None and given.get("n_samplers") in (None, AUTO):
        return {**keywords, "n_samplers": given["n_envs"]}
    return keywords


@contextmanager
def minibatches_of_any_size(rollout: str) -> Iterator[None]:
    """Around SB3's constructor, which warns of a last minibatch that is smaller: with whole episodes, any may be."""
    with warnings.catch_warnings():
        if rollout == EPISODES:
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        yield


def check_samplers(env: WrappedSamplers | None) -> None:
    """
    :param env: the samplers and what is around them, ``None`` if there are no samplers
    :raises ValueError: if they cannot collect whole episodes
    """
    if env is None:
        raise ValueError(
            "rollout='episodes' needs samplers, and this VecEnv trains in lockstep without any. Pass an env id, a "
            "function that builds an environment, or a SamplerVecEnv; or use rollout='steps'."
        )
    _check_envs_per_sampler(env.vec_env.envs_per_sampler)
    if env.vec_env.resets_late:
        raise ValueError(
            "rollout='episodes' was given with a vectorised environment that resets in the step after an episode. "
            "Build a single environment, or use rollout='steps'."
        )


def _check_envs_per_sampler(envs_per_sampler: int) -> None:
    if envs_per_sampler > 1:
        raise ValueError(
            f"rollout='episodes' was given with envs_per_sampler={envs_per_sampler}. The environments of a sampler "
            "step together, and whole episodes end at different times. Use samplers of one environment each, as in "
            "n_samplers=10."
        )


def whole_episodes(
    task: CollectionTask, env: WrappedSamplers, target_steps: int, max_episode_steps: int | None
) -> CollectionTask:
    """
    :param task: what is collected where rollouts consist of steps
    :param target_steps: about how many steps a rollout has
    :param max_episode_steps: the user's limit
    :return: the same of whole episodes. Those that no limit ends are truncated when they have ``target_steps``
    :raises ValueError: if the samplers cannot collect whole episodes, or not with this limit
    """
    check_samplers(env)
    own_limit = env.vec_env.max_episode_steps
    limits = [limit for limit in (own_limit, max_episode_steps) if limit is not None]
    if limits:
        rules = EpisodeRules(min(limits), None if min(limits) == own_limit else max_episode_steps)
    else:
        rules = EpisodeRules(TYPICAL_STEPS, target_steps)
    if rules.max_steps is not None and not env.vec_env.takes_limit:
        raise ValueError(
            f"rollout='episodes' has to truncate episodes after {rules.max_steps} steps (max_episode_steps, or "
            "target_steps where no limit is known), which it cannot do in a vectorised environment. Build a single "
            "environment, or use rollout='steps'."
        )
    # A sampler's share is one episode at least.
    n_steps = max(math.ceil(target_steps / env.vec_env.num_envs), min(rules.expected_steps, TYPICAL_STEPS))
    return replace(task, n_steps=n_steps, episodes=rules)
