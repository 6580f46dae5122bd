"""What is a vectorised environment, and what to pass instead of one."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.samplers.refusals import VectorizedEnvError

#: a function that builds a vectorised environment, as users write it
EXAMPLE = 'lambda n: gym.make_vec("CartPole-v1", num_envs=n)'


def check_single(env: Any) -> None:
    """:raises VectorizedEnvError: for a vectorised environment of Gymnasium, EnvPool, SB3, or of their kind"""
    if is_vectorized(env):
        raise VectorizedEnvError(
            f"{name_of(env)} is a vectorised environment: one object that steps several environments at once, which "
            "cannot be divided among samplers. Pass a function that builds one for a number of environments, such as "
            f"{EXAMPLE}, and say how many there are: n_samplers processes with envs_per_sampler environments each. A "
            "vectorised environment inside of an adapter that makes it a VecEnv of SB3 trains in lockstep, without "
            "samplers."
        )


def is_vectorized(env: Any) -> bool:
    inner = getattr(env, "unwrapped", env)
    if isinstance(inner, gym.vector.VectorEnv) or hasattr(inner, "step_wait"):
        # Also EnvPool's since Gymnasium 1.0, and SB3's.
        return True
    n_envs = getattr(inner, "num_envs", None)
    if isinstance(n_envs, int | np.integer) and n_envs > 1 and hasattr(inner, "single_action_space"):
        # Simulators on a GPU: a gymnasium.Env whose arrays have one row an environment.
        return True
    config = getattr(inner, "config", None)
    # EnvPool's before Gymnasium 1.0.
    return isinstance(config, Mapping) and {"num_envs", "batch_size"} <= set(config)


def name_of(env: Any) -> str:
    """:return: name of the class of an environment, without its wrappers"""
    return type(getattr(env, "unwrapped", env)).__name__
