"""Off-policy algorithms of experiments, by the names that the command line has for them."""

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle import AsyncDDPG, AsyncDQN, AsyncSAC, AsyncTD3
from sb3_walle.experiments.environments import UsageError, check_environment

#: SB3's algorithm and ours
ALGORITHMS: dict[str, tuple[type[OffPolicyAlgorithm], type[OffPolicyAlgorithm]]] = {
    "sac": (SAC, AsyncSAC),
    "td3": (TD3, AsyncTD3),
    "ddpg": (DDPG, AsyncDDPG),
    "dqn": (DQN, AsyncDQN),
}


def check_spaces(algorithm: str, env_id: str) -> gym.Env:
    """
    Refuse an environment that an algorithm cannot learn, before anything is done.

    :param algorithm: one of :data:`ALGORITHMS`
    :param env_id: Gymnasium id of the environment
    :return: the closed environment
    :raises UsageError: if there is no such environment, or if its spaces are of other kinds than the algorithm's
    """
    env = check_environment(env_id)
    if isinstance(env.observation_space, spaces.Dict):
        raise UsageError(f"'{env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    expected = spaces.Discrete if algorithm == "dqn" else spaces.Box
    if not isinstance(env.action_space, expected):
        raise UsageError(
            f"{algorithm.upper()} is for actions of a {expected.__name__} space, and those of '{env_id}' are of "
            f"{env.action_space}"
        )
    return env
