"""From what a user passes as ``env`` to samplers."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_walle.backends import as_backend, check_drives_plants
from sb3_walle.backends.limits import available_cpus
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervision import Supervision
from sb3_walle.envs.sampler_shape import (
    TYPICAL,
    Workload,
    measured_costs,
    measured_n_samplers,
    repeatable_n_samplers,
)
from sb3_walle.envs.subprocesses import what_to_write_instead
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.envs.wrappers import chain_of, put_around, why_not_in_samplers
from sb3_walle.samplers.factories import (
    EnvFactory,
    PickledEnv,
    call_arguments,
    factory_from_env,
    factory_from_id,
    pickle_main_module_by_value,
)
from sb3_walle.samplers.in_place import InPlaceEnv
from sb3_walle.samplers.last_actions import LastActionsFactory, check_n_actions
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized import check_single
from sb3_walle.sb3_private import reset_arguments, set_reset_arguments
from sb3_walle.user_warning import warn_user

EnvSource: TypeAlias = GymEnv | str | Callable[..., Any] | None

#: the number of samplers that is worked out
AUTO = "auto"
LOCKSTEP = "Training continues as in SB3, in lockstep and without samplers."
HOW_TO_BUILD = (
    "Pass an env id, a function that builds an environment, or "
    "make_vec_env(..., vec_env_cls=SamplerVecEnv) to have samplers collect experience asynchronously."
)


@dataclass(frozen=True)
class SamplerChoices:
    """
    How to start samplers: the arguments of these names of an algorithm's constructor, which
    :class:`~sb3_walle.algorithm.async_mixin.AsyncMixin` explains.

    :raises ValueError: if one of them is wrong
    """

    n_samplers: int | str | None = None
    envs_per_sampler: int | None = None
    n_envs: int | None = None
    backend: str | Backend = "process"
    on_failure: str | None = None
    max_restarts: int | None = None
    step_timeout: float | None = None
    close_timeout: float | None = None
    samplers_give_way: bool | None = None
    observe_last_action: int | None = None

    def __post_init__(self) -> None:
        as_backend(self.backend)
        for name in ("n_samplers", "envs_per_sampler", "n_envs"):
            number = getattr(self, name)
            if number is None or (name, number) == ("n_samplers", AUTO):
                continue
            if not isinstance(number, int | np.integer) or number < 1:
                or_auto = f', or "{AUTO}"' if name == "n_samplers" else ""
                raise ValueError(f"{name} must be an integer of at least 1{or_auto}, got {number!r}")
        if self.observe_last_action is not None:
            check_n_actions(self.observe_last_action)
        Supervision(**self.supervision)

    @classmethod
    def taken_from(cls, arguments: dict[str, Any]) -> "SamplerChoices":
        """
        :param arguments: keyword arguments, which those of this class are taken out of
        """
        return cls(**{field.name: arguments.pop(field.name) for field in fields(cls) if field.name in arguments})

    def for_plants(self, env: EnvSource) -> "SamplerChoices":
        """
        :param env: what the environments are made of
        :return: the same for mode ``"realtime"``, in which every environment is a plant: one sampler for each, one
            plant unless there are more, a failure is an error, because a restart would reset an unattended plant, and
            it is the learner that gives way
        :raises ValueError: if this is not what was chosen
        """
        if self.n_samplers == AUTO:
            raise ValueError(
                f"n_samplers={AUTO!r} finds the number of samplers by stepping environments with random actions, which "
                "mode='realtime' does to no plant. Pass the number of plants."
            )
        if self.envs_per_sampler not in (None, 1):
            raise ValueError(
                f"In mode='realtime' each sampler acts on one plant, got envs_per_sampler={self.envs_per_sampler}: the "
                "actions of one would wait for the steps of the others. Pass n_samplers, the number of plants."
            )
        if self.samplers_give_way:
            raise ValueError(
                "samplers_give_way=True was given with mode='realtime', in which the learner gives way to samplers. "
                "Leave it out."
            )
        if isinstance(env, VecEnv) and isinstance(env.unwrapped, SamplerVecEnv):
            return self
        check_drives_plants(self.backend)
        n_samplers = self.n_samplers or self.n_envs or (None if isinstance(env, VecEnv) else 1)
        return replace(self, n_samplers=n_samplers, on_failure=self.on_failure or "raise", samplers_give_way=False)

    @property
    def supervision(self) -> dict[str, Any]:
        """The arguments of ``Supervision`` that were given."""
        names = [field.name for field in fields(Supervision)]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def shares_objects(self) -> bool:
        """Whether samplers live in this process."""
        return as_backend(self.backend).shares_objects

    def n_envs_of_new(self) -> int:
        """
        :return: the number of environments, where nothing else tells
        :raises ValueError: if it is left open
        """
        if self.n_envs is not None:
            return self.n_envs
        n_samplers = self.n_samplers or available_cpus()
        if isinstance(n_samplers, str):
            raise ValueError(
                f"n_samplers={n_samplers!r} divides environments among samplers: pass their number, n_envs"
            )
        return n_samplers * (self.envs_per_sampler or 1)

    def n_samplers_of(self, n_envs: int) -> int | None:
        """
        :param n_envs: number of environments
        :return: the number of samplers, ``None`` where it is to be worked out
        :raises ValueError: if the numbers do not fit
        """
        given = {name: getattr(self, name) for name in ("n_samplers", "envs_per_sampler") if getattr(self, name)}
        given = {name: int(number) for name, number in given.items() if number != AUTO}
        if not given:
            return None if self.n_samplers == AUTO or self.n_envs is not None else n_envs
        product = math.prod(given.values())
        if product != n_envs if len(given) == 2 else n_envs % product:
            arguments = ", ".join(f"{name}={number}" for name, number in given.items())
            raise ValueError(f"{n_envs} environments cannot be divided among samplers with {arguments}")
        return given.get("n_samplers", n_envs // given.get("envs_per_sampler", 1))


@contextlib.contextmanager
def in_samplers(
    env: EnvSource,
    choices: SamplerChoices,
    preload: Sequence[str] = (),
    workload: Workload = TYPICAL,
    may_refuse: bool = False,
) -> Iterator[VecEnv | None]:
    """
    Put environments into samplers, for good unless the block raises an exception.

    :param env: an env id, a function that builds an environment or a vectorised one, an environment, or a ``VecEnv``
    :param choices: by default there is one sampler for each CPU that this process may use, or for each environment of a
        ``DummyVecEnv``
    :param preload: see :class:`SamplerVecEnv`
    :param workload: what samplers do, for the number of them where the user leaves it open
    :param may_refuse: whether a ``VecEnv`` that cannot be divided among samplers is an error
    :return: the samplers; or ``env`` itself, if it is ``None``, a ``VecEnv`` wrapper whose environments are in samplers
        now, or a ``VecEnv`` that cannot be divided among samplers
    :raises ValueError: if the numbers do not fit
    :raises TypeError: if an environment cannot be moved to a sampler
    """
    pickle_main_module_by_value()
    if env is None:
        yield None
    elif isinstance(env, VecEnv):
        if choices.observe_last_action is not None:
            raise ValueError(
                f"observe_last_action={choices.observe_last_action} was given with a VecEnv, whose environments exist "
                "already. Pass an env id or a function that builds an environment, or put LastActionsObservation "
                "around each environment."
            )
        with _divided(env, choices, preload, workload, may_refuse) as divided:
            yield divided
    else:
        n_envs = choices.n_envs_of_new()
        factories = _observing(_factories(env, n_envs, choices), choices.observe_last_action)
        with _new_samplers(factories, choices, preload, workload) as samplers:
            if isinstance(env, gym.Env) and n_envs > 1:
                # For generators that an environment makes of the seed of its first reset.
                samplers.seed()
            yield samplers


@contextlib.contextmanager
def in_samplers_like(
    present: VecEnv | None,
    n_envs: int,
    env: EnvSource,
    observe_last_action: int | None = None,
    are_plants: bool = False,
) -> Iterator[VecEnv | None]:
    """
    As :func:`in_samplers`, with the choices of the present environments.

    :param present: the present environments, with their wrappers
    :param n_envs: how many environments to make, where neither these nor ``env`` tell
    :param observe_last_action: how many actions observations include, where ``env`` is no ``VecEnv``
    :param are_plants: whether the environments are for mode ``"realtime"``
    """
    samplers = None if present is None else present.unwrapped
    choices = SamplerChoices(n_samplers=n_envs)
    if isinstance(samplers, SamplerVecEnv):
        supervision = asdict(samplers.client.supervision)
        choices = SamplerChoices(
            samplers.n_samplers, samplers.envs_per_sampler, backend=samplers.backend, **supervision
        )
    if isinstance(env, VecEnv):
        # It tells itself how many there are, and what happens when they fail.
        choices = SamplerChoices(backend=choices.backend)
    else:
        choices = replace(choices, observe_last_action=observe_last_action)
    if are_plants:
        choices = choices.for_plants(env)
    with in_samplers(env, choices) as found:
        yield found


@contextlib.contextmanager
def _new_samplers(
    factories: Sequence[EnvFactory], choices: SamplerChoices, preload: Sequence[str], workload: Workload
) -> Iterator[SamplerVecEnv]:
    n_samplers = choices.n_samplers_of(len(factories)) or _worked_out(factories, choices, preload, workload)
    envs_per_sampler = len(factories) // n_samplers
    samplers = SamplerVecEnv(factories, envs_per_sampler, choices.backend, preload, **choices.supervision)
    try:
        yield samplers
    except BaseException:
        samplers.close()
        raise


def _worked_out(
    factories: Sequence[EnvFactory], choices: SamplerChoices, preload: Sequence[str], workload: Workload
) -> int:
    """How many samplers hold these environments, where the user leaves it open."""
    n_envs, n_cpus = len(factories), as_backend(choices.backend).n_cpus()
    if choices.shares_objects:
        n_samplers, reason = 1, "the samplers of this process take turns"
    elif n_envs == 1:
        n_samplers, reason = 1, "there is one environment"
    elif call_arguments(factories[0]).takes_number:
        # What a step takes is no multiple of what a step of one environment takes.
        n_samplers = repeatable_n_samplers(n_envs, n_cpus)
        reason = f"at most one for each of {n_cpus} CPUs; what vectorised environments take is not measured"
    elif workload.has_seed:
        n_samplers = repeatable_n_samplers(n_envs, n_cpus)
        reason = f"at most one for each of {n_cpus} CPUs; with a seed, which promises the same run, nothing is measured"
    else:
        with SamplerVecEnv(factories[:1], 1, choices.backend, preload, **choices.supervision) as samplers:
            costs = measured_costs(samplers, n_envs, workload)
        n_samplers = measured_n_samplers(n_envs, workload.n_steps, costs, n_cpus)
        reason = f"{costs}; {n_cpus} CPUs"
    if workload.verbose >= 1:
        print(f"n_samplers={n_samplers}, envs_per_sampler={n_envs // n_samplers}: {reason}")
    return n_samplers


def _factories(env: gym.Env | str | Callable[..., Any], n_envs: int, choices: SamplerChoices) -> Sequence[EnvFactory]:
    check_single(env)
    if isinstance(env, str):
        return [factory_from_id(env)] * n_envs
    if isinstance(env, gym.Env):
        first = [InPlaceEnv(env)] if choices.shares_objects else []
        return [*first, *_copies(env, n_envs)[len(first) :]] if n_envs > len(first) else first
    if callable(env):
        return [env] * n_envs
    raise TypeError(f"env must be an env id, a function, an environment or a VecEnv, got {type(env)}. {HOW_TO_BUILD}")


def _observing(factories: Sequence[EnvFactory], n_actions: int | None) -> Sequence[EnvFactory]:
    """Functions that build the same environments, with the last actions in their observations."""
    if n_actions is None:
        return factories
    if call_arguments(factories[0]).takes_number:
        raise ValueError(
            f"observe_last_action={n_actions} was given with a function of a number, which builds a vectorised "
            "environment. Pass a function that builds a single one."
        )
    return [LastActionsFactory(factory, n_actions) for factory in factories]


def _copies(env: gym.Env, n_envs: int) -> Sequence[EnvFactory]:
    factory = factory_from_env(env)
    return factory.copies(n_envs) if isinstance(factory, PickledEnv) else [factory] * n_envs


@contextlib.contextmanager
def _divided(
    venv: VecEnv, choices: SamplerChoices, preload: Sequence[str], workload: Workload, may_refuse: bool
) -> Iterator[VecEnv]:
    inside, wrappers = chain_of(venv)
    if choices.n_envs not in (None, venv.num_envs):
        raise ValueError(f"n_envs={choices.n_envs} was given with a VecEnv of {venv.num_envs} environments")
    if isinstance(inside, SamplerVecEnv):
        _check_agreement(inside, choices)
        yield venv
        return
    try:
        factories = _factories_of(inside, wrappers, choices)
    except VectorizedEnvError:
        raise
    except TypeError as error:
        if may_refuse:
            raise
        warn_user(f"{LOCKSTEP} {error}")
        yield venv
        return
    with _new_samplers(factories, choices, preload, workload) as samplers:
        # make_vec_env() has seeded the environments for their first reset.
        set_reset_arguments(samplers, *reset_arguments(inside))
        if not wrappers:
            yield samplers
            return
        # The wrappers stay the same objects: the user may save their statistics, say.
        put_around(wrappers[0], samplers)
        try:
            yield venv
        except BaseException:
            put_around(wrappers[0], inside)
            raise


def _factories_of(inside: VecEnv, wrappers: list[VecEnvWrapper], choices: SamplerChoices) -> list[EnvFactory]:
    """How to get the environments into samplers. Raises ``TypeError`` where that is impossible."""
    if type(inside) is not DummyVecEnv:
        remedy = what_to_write_instead(inside) if isinstance(inside, SubprocVecEnv) else HOW_TO_BUILD
        raise TypeError(f"The environments cannot be taken out of a {type(inside).__name__}. {remedy}")
    obstacle = why_not_in_samplers(wrappers)
    if obstacle is not None:
        raise TypeError(obstacle)
    return [InPlaceEnv(env) if choices.shares_objects else factory_from_env(env) for env in inside.envs]


def _check_agreement(samplers: SamplerVecEnv, choices: SamplerChoices) -> None:
    n_samplers, envs_per_sampler = choices.n_samplers, choices.envs_per_sampler
    if n_samplers not in (None, AUTO, samplers.n_samplers) or envs_per_sampler not in (None, samplers.envs_per_sampler):
        raise ValueError(
            f"The SamplerVecEnv has {samplers.n_samplers} samplers of {samplers.envs_per_sampler} environments. "
            f"Leave out n_samplers={n_samplers} and envs_per_sampler={envs_per_sampler}, or build it with these."
        )
    present, asked_for = samplers.client.supervision, choices.supervision
    if asked_for and Supervision(**asked_for) != present:
        raise ValueError(
            f"The samplers of a SamplerVecEnv were started with {present}, so {Supervision(**asked_for)} comes too "
            "late. Pass on_failure, max_restarts, step_timeout, close_timeout and samplers_give_way to the "
            "SamplerVecEnv instead."
        )
