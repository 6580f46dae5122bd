"""Time limits of environments: the one that they have, and another one for those that exist already."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from sb3_walle.samplers.monitor import innermost_monitor


class EpisodeLimit(gym.Wrapper):
    """
    Truncates an episode after a number of steps, as Gymnasium's ``TimeLimit`` does.

    :param max_steps: how many
    """

    def __init__(self, env: gym.Env, max_steps: int) -> None:
        super().__init__(env)
        self._max_steps, self._n_steps = max_steps, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._n_steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._n_steps += 1
        return observation, reward, terminated, truncated or self._n_steps >= self._max_steps, info


def own_limit(env: gym.Env) -> int | None:
    """:return: after how many steps Gymnasium's ``TimeLimit`` truncates an episode, ``None`` if there is none"""
    limits = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            # Gymnasium has no other name for it: env.spec, which knows it, copies all arguments of the environment.
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def can_limit(envs: Sequence[gym.Env]) -> bool:
    """:return: whether :func:`limit_episodes` reaches all of these; vectorised environments are in no ``Monitor``"""
    return len(envs) > 0 and all(innermost_monitor(env) is not None for env in envs)


def limit_episodes(envs: Sequence[gym.Env], max_steps: int | None) -> None:
    """
    Set the limit of environments. It goes inside of their ``Monitor``, which reports the episodes that it ends.

    :param envs: environments inside of a ``Monitor`` each; others are left alone
    :param max_steps: steps of an episode at most, ``None`` to take the limit away
    """
    for env in envs:
        monitor = innermost_monitor(env)
        if monitor is None:
            continue
        if isinstance(monitor.env, EpisodeLimit):
            monitor.env = monitor.env.env
        if max_steps is not None:
            monitor.env = EpisodeLimit(monitor.env, max_steps)
