"""How samplers explore: as SB3's off-policy algorithms do it in their one process, or by a ladder."""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.actors.exploration import IS_RANDOM, RATE, TRAINING
from sb3_walle.samplers.actors.random_streams import RandomStreams
from sb3_walle.sb3_private import timesteps_to_learn

LADDERS = ("apex",)
# Ape-X (Horgan et al., 2018, https://arxiv.org/abs/1803.00933): sampler i of N explores with the probability
# BASE ** (1 + EXPONENT * i / (N - 1)).
BASE_RATE, RATE_EXPONENT = 0.4, 7.0
# Of actions that are scaled to [-1, 1].
LOWEST_SIGMA, HIGHEST_SIGMA = 0.05, 0.8


def check_ladder(ladder: str | None, algorithm: str, has_ladder: bool) -> None:
    """
    :param algorithm: name of an algorithm
    :param has_ladder: whether it makes sense for it that samplers explore to different degrees
    :raises ValueError: if there is no such ladder, or the algorithm has none
    """
    if ladder is None:
        return
    if ladder not in LADDERS:
        raise ValueError(f"noise_ladder must be one of {LADDERS} or None, got {ladder!r}")
    if not has_ladder:
        raise ValueError(
            f"noise_ladder={ladder!r} makes samplers explore to different degrees, but the policy of {algorithm} "
            "learns how much to explore. Leave it out, or use an algorithm whose class says has_noise_ladder = True, "
            "such as AsyncTD3."
        )


def check_rungs(ladder: str | None, noise: ActionNoise | None, samplers: WrappedSamplers | None) -> None:
    """
    :param noise: the algorithm's action noise
    :param samplers: those that explore, ``None`` if there are none
    :raises ValueError: if they cannot explore to different degrees
    """
    if ladder is None:
        return
    if noise is not None:
        raise ValueError("noise_ladder brings noise of its own. Leave out one of noise_ladder and action_noise.")
    if samplers is not None and samplers.vec_env.n_samplers < 2:
        raise ValueError("noise_ladder has a rung for each sampler, of which it takes at least 2: there is only 1.")


def planned_exploration(
    algorithm: OffPolicyAlgorithm, training: int, n_steps_ahead: int, n_steps: int
) -> Mapping[str, np.ndarray]:
    """
    What samplers are told together with a set of weights.

    :param training: number of the present ``learn()``
    :param n_steps_ahead: how many steps of each environment lie between those that the algorithm has counted and the
        first that is taken with these weights
    :param n_steps: for how many steps of each environment to plan
    :return: for each of them, whether its actions are uniformly random, and the probability of a random action if they
        are not, ``[n_steps]`` each; and the number of the training
    """
    n_envs = algorithm.n_envs
    counts = algorithm.num_timesteps + n_envs * (n_steps_ahead + np.arange(n_steps))
    explores_from_the_start = algorithm.use_sde and algorithm.use_sde_at_warmup
    is_random = np.full(n_steps, False) if explores_from_the_start else counts < algorithm.learning_starts
    return {IS_RANDOM: is_random, RATE: _rates(algorithm, n_steps_ahead, counts), TRAINING: np.array(training)}


def is_epsilon_greedy(algorithm: OffPolicyAlgorithm) -> bool:
    """:return: whether ``predict()`` takes a random action with the probability ``exploration_rate``, as DQN's does"""
    return hasattr(algorithm, "exploration_schedule")


def _rates(algorithm: OffPolicyAlgorithm, n_steps_ahead: int, counts: np.ndarray) -> np.ndarray:
    if not is_epsilon_greedy(algorithm):
        return np.zeros(len(counts))
    schedule = algorithm.exploration_schedule  # type: ignore[attr-defined]
    rates = np.array([schedule(1.0 - float(count) / float(timesteps_to_learn(algorithm))) for count in counts])
    if n_steps_ahead == 0:
        # Before the first step ever, SB3's rate is not yet that of its schedule.
        rates[0] = algorithm.exploration_rate  # type: ignore[attr-defined]
    return rates


def noise_of_one_env(noise: ActionNoise | None) -> ActionNoise | None:
    """:return: the noise of one environment: in ``learn()``, SB3 replaces it by that of all"""
    return noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise


def scaled_actions_dtype(action_space: spaces.Space, noise: ActionNoise | None) -> str:
    """
    :param noise: action noise of one environment, which is not changed
    :return: data type that holds every scaled action of SB3's ``_sample_action()``, random ones and those of the policy
    """
    is_narrow = action_space.dtype in (np.float16, np.float32)
    scaled = np.zeros(1, np.float32 if is_narrow else np.float64)
    if noise is not None:
        # Noise of a user's own tells its data type only by being drawn.
        with RandomStreams((0,), action_space):
            scaled = scaled + deepcopy(noise)()
    return scaled.dtype.str


def ladder_rate(sampler: int, n_samplers: int) -> float:
    """:return: with which probability one of at least 2 samplers takes a random action, from 0.4 down to 0.4 ** 8"""
    return BASE_RATE ** (1.0 + RATE_EXPONENT * sampler / (n_samplers - 1))


def ladder_noise(sampler: int, n_samplers: int, action_dim: int) -> NormalActionNoise:
    """:return: normal noise of one of at least 2 samplers: standard deviations grow evenly from 0.05 to 0.8"""
    sigma = LOWEST_SIGMA + (HIGHEST_SIGMA - LOWEST_SIGMA) * sampler / (n_samplers - 1)
    return NormalActionNoise(np.zeros(action_dim), np.full(action_dim, sigma))
