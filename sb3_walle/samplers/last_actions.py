"""The last actions as part of the observation, for environments with a delay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.factories import EnvFactory
from sb3_walle.samplers.vectorized import check_single

#: where the last actions are in observations that are dictionaries
LAST_ACTIONS = "last_actions"


class LastActionsObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """
    Appends the last actions to the observation. Where an action takes effect with a delay, the observation alone does
    not tell what is going to happen, and an agent that sees the actions under way learns again (`Ramstedt & Pal, 2019
    <https://arxiv.org/abs/1911.04448>`_).

    The actions come as the environment gets them, the oldest first: of a ``Box``, flattened; of a ``Discrete``, as
    one-hot vectors. Before the first actions of an episode, there are zeros. They follow the numbers of a flat ``Box``
    observation, and are the entry ``"last_actions"`` of a ``Dict``.

    :param n_actions: how many actions
    :raises ValueError: if ``n_actions`` is not at least 1, or the environment's spaces are of another kind
    """

    def __init__(self, env: gym.Env, n_actions: int = 1) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, n_actions=n_actions)
        gym.Wrapper.__init__(self, env)
        check_n_actions(n_actions)
        low, high, self._to_vector = _vectors(env.action_space)
        observed = env.observation_space
        dtype = observed.dtype if _is_flat(observed) else np.dtype(np.float32)
        #: the last actions, ``[n_actions, size of an action]``
        self._actions = np.zeros((n_actions, len(low)), dtype)
        # Zeros stand for actions that there were not.
        bounds = np.minimum(np.tile(low, n_actions), 0), np.maximum(np.tile(high, n_actions), 0)
        self._actions_space = spaces.Box(*(bound.astype(dtype) for bound in bounds), dtype=dtype)
        self.observation_space = self._space_with_actions(observed)

    def _space_with_actions(self, observed: spaces.Space) -> spaces.Space:
        added = self._actions_space
        if isinstance(observed, spaces.Dict):
            if LAST_ACTIONS in observed.spaces:
                raise ValueError(f"The environment's observations have an entry {LAST_ACTIONS!r} already.")
            return spaces.Dict({**observed.spaces, LAST_ACTIONS: added})
        if _is_flat(observed):
            low, high = np.append(observed.low, added.low), np.append(observed.high, added.high)
            return spaces.Box(low, high, dtype=observed.dtype)
        raise ValueError(
            "The last actions can be appended to observations that are a flat Box of floating-point numbers or a Dict, "
            f"not {observed}. Make it a Dict with the present observation as an entry."
        )

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._actions.fill(0)
        observation, info = self.env.reset(**kwargs)
        return self._with_actions(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._actions[:-1] = self._actions[1:]
        self._actions[-1] = self._to_vector(action)
        return self._with_actions(observation), reward, terminated, truncated, info

    def _with_actions(self, observation: Any) -> Any:
        if isinstance(observation, dict):
            return {**observation, LAST_ACTIONS: self._actions.flatten()}
        return np.append(observation, self._actions)


@dataclass(frozen=True)
class LastActionsFactory:
    """
    Builds an environment whose observations include the last actions.

    :param factory: builds the environment itself
    :param n_actions: how many actions
    """

    factory: EnvFactory
    n_actions: int

    def __call__(self) -> LastActionsObservation:
        env = self.factory()
        check_single(env)
        return LastActionsObservation(env, self.n_actions)


def _is_flat(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """:return: whether further numbers can be appended to its vectors"""
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)


def check_n_actions(n_actions: int) -> None:
    """:raises ValueError: if it is no number of actions"""
    if not isinstance(n_actions, int | np.integer) or n_actions < 1:
        raise ValueError(f"The number of last actions to observe must be an integer of at least 1, got {n_actions!r}")


def _vectors(space: spaces.Space) -> tuple[np.ndarray, np.ndarray, Callable[[Any], np.ndarray]]:
    """:return: the bounds of an action as a vector, and what makes a vector of an action"""
    if isinstance(space, spaces.Box):
        return space.low.ravel(), space.high.ravel(), np.ravel
    if isinstance(space, spaces.Discrete):
        one_hot = np.eye(int(space.n))
        return one_hot[0] * 0, one_hot[0] * 0 + 1, lambda action: one_hot[int(action) - int(space.start)]
    raise ValueError(f"Only actions of a Box or a Discrete space can be observed, not of {space}.")
