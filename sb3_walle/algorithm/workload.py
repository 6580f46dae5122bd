"""What samplers are going to do for an algorithm, from its constructor's arguments."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from sb3_walle.collection.queues import MAX_CHUNK_STEPS
from sb3_walle.envs.sampler_shape import Workload
from sb3_walle.updates.global_state import threads_at_most

N_TIMES = 5


# Whose MLP policies the NumPy actor knows.
_IN_NUMPY = (
    "stable_baselines3.",
    "sb3_contrib.tqc.",
    "sb3_contrib.qrdqn.",
    "sb3_contrib.common.maskable.",
    "sb3_contrib.common.recurrent.",
)


def may_run_in_numpy(aliases: Mapping[str, type[BasePolicy]], policy: str | type[BasePolicy]) -> bool:
    """
    :param aliases: the algorithm's policies by name
    :param policy: the user's ``policy``
    :return: whether NumPy probably runs it, so that samplers do without torch
    """
    if policy not in ("MlpPolicy", "MlpLstmPolicy"):
        return False
    policy_class = aliases.get(str(policy))
    return policy_class is not None and policy_class.__module__.startswith(_IN_NUMPY)


def arguments_of(constructor: Callable[..., None], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """
    :param constructor: SB3's
    :return: all arguments of a call by name, defaults included
    """
    bound = inspect.signature(constructor).bind_partial(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def workload_of(aliases: Mapping[str, type[BasePolicy]], arguments: Mapping[str, Any], is_numpy: bool) -> Workload:
    """
    :param aliases: the algorithm's policies by name
    :param arguments: all arguments of SB3's constructor by name
    :param is_numpy: whether NumPy runs the policy
    """
    policy = arguments["policy"]
    policy_class = aliases.get(policy) if isinstance(policy, str) else policy
    workload = Workload(
        _steps_of_a_request(arguments),
        has_seed=arguments.get("seed") is not None,
        verbose=arguments.get("verbose", 0),
    )
    if is_numpy or policy_class is None:
        # SB3 has an error of its own for a policy that it does not know.
        return workload
    return replace(
        workload, seconds_to_act=partial(_seconds_to_act, policy_class, arguments.get("policy_kwargs") or {})
    )


def _steps_of_a_request(arguments: Mapping[str, Any]) -> int:
    n_steps = arguments.get("n_steps", MAX_CHUNK_STEPS)
    if "train_freq" in arguments:
        train_freq = arguments["train_freq"]
        n_steps, unit = train_freq if isinstance(train_freq, tuple) else (train_freq, "step")
        if unit == "episode":
            # Their steps are asked for one by one.
            return 1
    # SB3 has an error of its own for what is no number.
    return min(n_steps, MAX_CHUNK_STEPS) if isinstance(n_steps, int) else MAX_CHUNK_STEPS


def _seconds_to_act(
    policy_class: type[BasePolicy],
    policy_kwargs: dict[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    n_envs: int,
) -> float:
    """How long a new policy takes to choose the actions of that many environments, with one thread as in samplers."""
    with th.random.fork_rng(devices=()), threads_at_most(1):
        policy = policy_class(_channels_first(observation_space), action_space, lambda _: 0.0, **policy_kwargs)
        observations = _stacked([observation_space.sample()] * n_envs)
        return median(_seconds_of_prediction(policy, observations) for _ in range(N_TIMES))


def _seconds_of_prediction(policy: BasePolicy, observations: Any) -> float:
    started = time.perf_counter()
    policy.predict(observations)
    return time.perf_counter() - started


def _stacked(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)


def _channels_first(space: spaces.Space) -> spaces.Space:
    """The space that SB3 gives to the policy."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _channels_first(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        return VecTransposeImage.transpose_space(space)
    return space
