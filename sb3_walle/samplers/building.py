"""From the functions that a user passes to the environments of a sampler."""

import traceback
from collections.abc import Sequence
from typing import Any

from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.factories import EnvFactory
from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized import check_single, is_vectorized
from sb3_walle.samplers.vectorized.detection import EXAMPLE, name_of
from sb3_walle.samplers.vectorized.factory import VectorFactory
from sb3_walle.samplers.vectorized.vectorized_envs import VectorizedEnvs
from sb3_walle.transport.pulse import Pulse


def build_envs(
    factories: Sequence[EnvFactory], pulse: Pulse | None = None, first_env: int = 0, incarnation: int = 0
) -> InnermostEnvs:
    """
    :param factories: builds one environment each; or as many times the same function, which builds a vectorised one
    :param pulse: told whenever an environment begins a step or a reset; ``None`` where no step is timed
    :param first_env: number of the first environment among those of all samplers
    :param incarnation: how many samplers with these environments have died before
    :return: the environments of one sampler
    :raises TypeError: if a function returns something else than an environment
    :raises ValueError: if two functions return the same environment, or their spaces differ
    :raises VectorizedEnvError: if a vectorised environment has another number of environments
    :raises UnsupportedSpaceError: if observations are no arrays
    """
    factory = VectorFactory(factories)
    first = _called(factory)
    if not is_vectorized(first) and not factory.takes_number:
        return SamplerEnvs([lambda: first, *factories[1:]], pulse, first_env)
    _check_number(first, factory)
    if any(other is not factories[0] for other in factories):
        check_single(first)
    return VectorizedEnvs(factory, first, pulse, first_env, incarnation)


def _called(factory: VectorFactory) -> Any:
    try:
        return factory()
    except Exception as error:
        # What SB3's make_vec_env() and Gymnasium's wrappers say of a vectorised environment does not help.
        check_single(_refused_env(error))
        raise


def _refused_env(error: Exception) -> Any:
    """The ``env`` that a function was given which has raised an exception, ``None`` if it was given none."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_locals.get("env")


def _check_number(env: Any, factory: VectorFactory) -> None:
    if not is_vectorized(env):
        raise VectorizedEnvError(
            f"The function that builds environments takes an argument, so it was asked for {factory.n_envs} "
            f"environments in one vectorised environment, as {EXAMPLE} is. It returned {type(env)}. A function that "
            "builds a single environment takes no argument."
        )
    config = getattr(getattr(env, "unwrapped", env), "config", {})
    n_envs = getattr(env, "num_envs", None) or config.get("num_envs")
    if n_envs != factory.n_envs:
        raise VectorizedEnvError(
            f"{name_of(env)} is a vectorised environment of {n_envs} environments, but each sampler has "
            f"envs_per_sampler={factory.n_envs} of them. Let the function take the number, as {EXAMPLE} does, or pass "
            f"envs_per_sampler={n_envs}. There are n_samplers processes with envs_per_sampler environments each."
        )
