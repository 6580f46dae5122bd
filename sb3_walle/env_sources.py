"""Whatever a user passes as ``env``, as samplers."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

import gymnasium as gym
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_walle.backends import BACKENDS
from sb3_walle.samplers.factories import EnvFactory, PickledEnv, factory_from_env, factory_from_id
from sb3_walle.vec_env import SamplerVecEnv

EnvSource: TypeAlias = GymEnv | str | Callable[[], gym.Env] | None

HOW_TO_BUILD = (
    "Pass an env id, a function that builds an environment, or "
    "make_vec_env(..., vec_env_cls=SamplerVecEnv) to have samplers collect experience asynchronously."
)


def available_cpus() -> int:
    """:return: the number of CPUs that this process may use"""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def to_samplers(
    env: EnvSource,
    n_samplers: int | None = None,
    envs_per_sampler: int = 1,
    backend: str = "process",
    preload: Sequence[str] = (),
) -> VecEnv | None:
    """
    Put environments into samplers.

    :param env: an env id, a function that builds an environment, an environment, or a ``VecEnv``
    :param n_samplers: number of samplers, by default one for each CPU that this process may use, or one for every
        ``envs_per_sampler`` environments of a ``DummyVecEnv``
    :param envs_per_sampler: environments of each sampler
    :param backend: where samplers live
    :param preload: see :class:`SamplerVecEnv`
    :return: the samplers; or ``env`` itself, if it is ``None`` or a ``VecEnv`` that cannot be divided among samplers
    :raises ValueError: if the numbers do not fit
    :raises TypeError: if an environment cannot be moved to a sampler
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if n_samplers is not None and n_samplers < 1:
        raise ValueError(f"n_samplers must be at least 1, got {n_samplers}")
    if envs_per_sampler < 1:
        raise ValueError(f"envs_per_sampler must be at least 1, got {envs_per_sampler}")
    if env is None:
        return None
    if isinstance(env, VecEnv):
        return _divided(env, n_samplers, envs_per_sampler, backend, preload)
    factory, n_envs = _factory(env), (n_samplers or available_cpus()) * envs_per_sampler
    samplers = SamplerVecEnv([factory] * n_envs, envs_per_sampler, backend, preload)
    if isinstance(factory, PickledEnv):
        # The copies have brought the original's random stream with them. They must not all go on with it.
        samplers.seed()
    return samplers


def _factory(env: gym.Env | str | Callable[[], gym.Env]) -> EnvFactory:
    if isinstance(env, str):
        return factory_from_id(env)
    if isinstance(env, gym.Env):
        return factory_from_env(env)
    if callable(env):
        return env
    raise TypeError(f"env must be an env id, a function, an environment or a VecEnv, got {type(env)}. {HOW_TO_BUILD}")


def _divided(
    venv: VecEnv, n_samplers: int | None, envs_per_sampler: int, backend: str, preload: Sequence[str]
) -> VecEnv:
    unwrapped = venv.unwrapped
    if isinstance(unwrapped, SamplerVecEnv):
        _check_agreement(unwrapped, n_samplers, envs_per_sampler)
        return venv
    if type(venv) is not DummyVecEnv:
        warnings.warn(
            f"{type(venv).__name__} steps its environments in lockstep, and they cannot be taken out of it: training "
            f"goes on as in SB3, without samplers. {HOW_TO_BUILD}",
            stacklevel=4,
        )
        return venv
    try:
        factories = [factory_from_env(env) for env in venv.envs]
    except TypeError as error:
        warnings.warn(f"Training goes on as in SB3, without samplers. {error}", stacklevel=4)
        return venv
    if n_samplers is not None:
        if venv.num_envs % n_samplers:
            raise ValueError(
                f"The {venv.num_envs} environments of the VecEnv cannot be divided among {n_samplers} samplers"
            )
        envs_per_sampler = venv.num_envs // n_samplers
    samplers = SamplerVecEnv(factories, envs_per_sampler, backend, preload)
    # make_vec_env() has seeded the environments for their first reset.
    samplers._seeds, samplers._options = venv._seeds, venv._options
    return samplers


def _check_agreement(samplers: SamplerVecEnv, n_samplers: int | None, envs_per_sampler: int) -> None:
    if n_samplers not in (None, samplers.n_samplers) or envs_per_sampler not in (1, samplers.envs_per_sampler):
        raise ValueError(
            f"The SamplerVecEnv has {samplers.n_samplers} samplers of {samplers.envs_per_sampler} environments, but "
            f"n_samplers={n_samplers} and envs_per_sampler={envs_per_sampler} were given. Leave them out."
        )
