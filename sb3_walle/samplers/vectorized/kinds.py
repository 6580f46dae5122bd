"""Which adapter steps which vectorised environment."""

from typing import Any

import gymnasium as gym

from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized.detection import name_of
from sb3_walle.samplers.vectorized.envpool import EnvPoolVector, is_pool
from sb3_walle.samplers.vectorized.gymnasium_vector import GymnasiumVector
from sb3_walle.samplers.vectorized.protocol import VectorAdapter
from sb3_walle.samplers.vectorized.sb3_vec_env import VecEnvVector


def adapter_of(env: Any, first_env: int, incarnation: int) -> VectorAdapter:
    """
    :param env: a vectorised environment
    :param first_env: number of its first environment among those of all samplers
    :param incarnation: how many samplers with these environments have died before
    :raises VectorizedEnvError: for a kind that samplers do not step
    """
    if is_pool(env):
        return EnvPoolVector(env, first_env, incarnation)
    if isinstance(env, gym.vector.VectorEnv):
        return GymnasiumVector(env)
    if hasattr(env, "step_wait"):
        return VecEnvVector(env)
    raise VectorizedEnvError(
        f"{name_of(env)} is a vectorised environment of a kind that samplers do not step. They step a "
        'gymnasium.vector.VectorEnv, EnvPool\'s with env_type="gymnasium", and a VecEnv of SB3.'
    )
