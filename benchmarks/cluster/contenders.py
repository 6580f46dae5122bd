"""Who takes part: AsyncPPO with each of its backends, and SB3's PPO with a remote call for each step."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3 import PPO

from benchmarks.cluster.cluster_settings import ClusterSettings
from sb3_walle import AsyncPPO
from sb3_walle.backends.ray import RayBackend

PROCESS, RAY, REMOTE_STEPS = 'AsyncPPO, backend="process"', 'AsyncPPO, backend="ray"', "PPO, a remote call a step"
BACKENDS = {PROCESS: "process", RAY: "ray"}
MakeEnv = Callable[[], gym.Env]


def create_async_ppo(
    settings: ClusterSettings, make_env: MakeEnv, backend: str | RayBackend, **arguments: Any
) -> AsyncPPO:
    """
    :param make_env: builds an environment
    :param backend: where samplers run
    :param arguments: further arguments of the constructor
    :return: the algorithm
    """
    given = {"n_samplers": settings.n_samplers, "n_steps": settings.n_steps, "learner": "eager", **arguments}
    return AsyncPPO("MlpPolicy", make_env, backend=backend, device="cpu", **given)


def create_ppo_with_remote_steps(settings: ClusterSettings, make_env: MakeEnv) -> PPO:
    """
    :param make_env: builds an environment
    :return: the algorithm
    """
    from benchmarks.cluster.remote_step_env import RemoteStepVecEnv

    env = RemoteStepVecEnv([make_env] * settings.n_samplers)
    return PPO("MlpPolicy", env, n_steps=settings.n_steps, device="cpu")
