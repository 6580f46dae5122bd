"""From what a user passes as ``env`` to samplers."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import gymnasium as gym
import numpy as np
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_walle.backends import as_backend
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervision import Supervision
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.envs.wrappers import chain_of, why_not_in_samplers
from sb3_walle.samplers.factories import (
    EnvFactory,
    PickledEnv,
    factory_from_env,
    factory_from_id,
    pickle_main_module_by_value,
)
from sb3_walle.samplers.in_place import InPlaceEnv
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized import check_single
from sb3_walle.sb3_private import reset_arguments, set_reset_arguments
from sb3_walle.user_warning import warn_user

EnvSource: TypeAlias = GymEnv | str | Callable[[], gym.Env] | None

LOCKSTEP = "Training continues as in SB3, in lockstep and without samplers."
HOW_TO_BUILD = (
    "Pass an env id, a function that builds an environment, or "
    "make_vec_env(..., vec_env_cls=SamplerVecEnv) to have samplers collect experience asynchronously."
)


def available_cpus() -> int:
    """:return: the number of CPUs that this process may use"""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def in_samplers(
    env: EnvSource,
    n_samplers: int | None = None,
    envs_per_sampler: int = 1,
    backend: str | Backend = "process",
    preload: Sequence[str] = (),
    supervision: Supervision | None = None,
) -> Iterator[VecEnv | None]:
    """
    Put environments into samplers, for good unless the block raises an exception.

    :param env: an env id, a function that builds an environment, an environment, or a ``VecEnv``
    :param n_samplers: number of samplers, by default one for each CPU that this process may use, or one for every
        ``envs_per_sampler`` environments of a ``DummyVecEnv``
    :param envs_per_sampler: environments of each sampler
    :param backend: where samplers live
    :param preload: see :class:`SamplerVecEnv`
    :param supervision: what happens when samplers die or hang, ``None`` for the default, or what a ``SamplerVecEnv``
        was told
    :return: the samplers; or ``env`` itself, if it is ``None``, a ``VecEnv`` wrapper whose environments are in samplers
        now, or a ``VecEnv`` that cannot be divided among samplers
    :raises ValueError: if the numbers do not fit
    :raises TypeError: if an environment cannot be moved to a sampler
    """
    # An unknown one is an error before anything is built.
    as_backend(backend)
    for name, number in (("n_samplers", n_samplers), ("envs_per_sampler", envs_per_sampler)):
        if number is not None and (not isinstance(number, int | np.integer) or number < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    pickle_main_module_by_value()
    if env is None:
        yield None
    elif isinstance(env, VecEnv):
        with _divided(env, n_samplers, envs_per_sampler, backend, preload, supervision) as divided:
            yield divided
    else:
        factories = _factories(env, (n_samplers or available_cpus()) * envs_per_sampler, backend)
        with _new_samplers(factories, envs_per_sampler, backend, preload, supervision) as samplers:
            if isinstance(env, gym.Env) and len(factories) > 1:
                # For generators that an environment makes of the seed of its first reset.
                samplers.seed()
            yield samplers


@contextlib.contextmanager
def _new_samplers(
    factories: Sequence[EnvFactory],
    envs_per_sampler: int,
    backend: str | Backend,
    preload: Sequence[str],
    supervision: Supervision | None,
) -> Iterator[SamplerVecEnv]:
    """Samplers that are closed if the block raises an exception."""
    choices = {} if supervision is None else vars(supervision)
    samplers = SamplerVecEnv(factories, envs_per_sampler, backend, preload, **choices)
    try:
        yield samplers
    except BaseException:
        samplers.close()
        raise


def _factories(env: gym.Env | str | Callable[[], gym.Env], n_envs: int, backend: str | Backend) -> Sequence[EnvFactory]:
    if isinstance(env, gym.Env) and as_backend(backend).shares_objects:
        check_single(env)
        return [InPlaceEnv(env), *(_copies(factory_from_env(env), n_envs)[1:] if n_envs > 1 else ())]
    return _copies(_factory(env), n_envs)


def _copies(factory: EnvFactory, n_envs: int) -> Sequence[EnvFactory]:
    return factory.copies(n_envs) if isinstance(factory, PickledEnv) else [factory] * n_envs


def _factory(env: gym.Env | str | Callable[[], gym.Env]) -> EnvFactory:
    check_single(env)
    if isinstance(env, str):
        return factory_from_id(env)
    if isinstance(env, gym.Env):
        return factory_from_env(env)
    if callable(env):
        return env
    raise TypeError(f"env must be an env id, a function, an environment or a VecEnv, got {type(env)}. {HOW_TO_BUILD}")


@contextlib.contextmanager
def _divided(
    venv: VecEnv,
    n_samplers: int | None,
    envs_per_sampler: int,
    backend: str | Backend,
    preload: Sequence[str],
    supervision: Supervision | None,
) -> Iterator[VecEnv]:
    inside, wrappers = chain_of(venv)
    if isinstance(inside, SamplerVecEnv):
        _check_agreement(inside, n_samplers, envs_per_sampler, supervision)
        yield venv
        return
    try:
        factories = _factories_of(inside, wrappers, backend)
    except VectorizedEnvError:
        raise
    except TypeError as error:
        warn_user(f"{LOCKSTEP} {error}")
        yield venv
        return
    if n_samplers is not None:
        if venv.num_envs % n_samplers:
            raise ValueError(
                f"The {venv.num_envs} environments of the VecEnv cannot be divided among {n_samplers} samplers"
            )
        envs_per_sampler = venv.num_envs // n_samplers
    with _new_samplers(factories, envs_per_sampler, backend, preload, supervision) as samplers:
        # make_vec_env() has seeded the environments for their first reset.
        set_reset_arguments(samplers, *reset_arguments(inside))
        if not wrappers:
            yield samplers
            return
        # The wrappers stay the same objects: the user may save their statistics, say.
        wrappers[0].venv = samplers
        try:
            yield venv
        except BaseException:
            wrappers[0].venv = inside
            raise


def _factories_of(inside: VecEnv, wrappers: list[VecEnvWrapper], backend: str | Backend) -> list[EnvFactory]:
    """How to get the environments into samplers. Raises ``TypeError`` where that is impossible."""
    if type(inside) is not DummyVecEnv:
        raise TypeError(f"The environments cannot be taken out of a {type(inside).__name__}. {HOW_TO_BUILD}")
    obstacle = why_not_in_samplers(wrappers)
    if obstacle is not None:
        raise TypeError(obstacle)
    return [InPlaceEnv(env) if as_backend(backend).shares_objects else factory_from_env(env) for env in inside.envs]


def _check_agreement(
    samplers: SamplerVecEnv, n_samplers: int | None, envs_per_sampler: int, supervision: Supervision | None
) -> None:
    if n_samplers not in (None, samplers.n_samplers) or envs_per_sampler not in (1, samplers.envs_per_sampler):
        raise ValueError(
            f"The SamplerVecEnv has {samplers.n_samplers} samplers of {samplers.envs_per_sampler} environments. "
            f"Leave out n_samplers={n_samplers} and envs_per_sampler={envs_per_sampler}, or build it with these."
        )
    present = samplers.client.supervision
    if supervision not in (None, present):
        raise ValueError(
            f"The samplers of a SamplerVecEnv were started with {present}, so {supervision} comes too late. Pass "
            "on_failure, max_restarts, step_timeout, close_timeout and samplers_give_way to the SamplerVecEnv instead."
        )
