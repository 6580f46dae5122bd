"""Who takes part in a comparison: our algorithms in several configurations, and SB3's with their VecEnvs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.slow_envs import Slowness
from sb3_walle import AsyncPPO
from sb3_walle.cli.algorithms import policy_of
from sb3_walle.cli.comparison import VEC_ENVS
from sb3_walle.cli.environments import quiet_factory
from sb3_walle.cli.throughput import leaving_nothing

Mode = Literal["sync", "pipelined", "free"]


class Contender(Protocol):
    """Something that trains."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def n_envs(self) -> int:
        """The number of environments, all samplers or processes together."""
        ...

    def create(self, env_id: str, mode: Mode, **arguments: Any) -> Any:
        """
        Build the algorithm.

        :param mode: how collection and training overlap; SB3's never do
        :return: the algorithm
        """
        ...


@dataclass(frozen=True)
class AsyncContender:
    """
    One of our algorithms.

    :param n_samplers: sampler processes
    :param envs_per_sampler: environments of each
    :param learner: which update it makes
    :param slowness: how slow its environments are; None for as they are
    :param algorithm: its class
    :param policy: name of its policy; None for the one that suits the environment
    """

    n_samplers: int
    envs_per_sampler: int
    learner: str = "auto"
    slowness: Slowness | None = None
    algorithm: type[BaseAlgorithm] = AsyncPPO
    policy: str | None = None

    @property
    def name(self) -> str:
        return f"{self.algorithm.__name__}, {self.n_samplers} x {self.envs_per_sampler}"

    @property
    def n_envs(self) -> int:
        return self.n_samplers * self.envs_per_sampler

    def env(self, env_id: str) -> Callable[..., Any]:
        """:return: the ``env`` of the algorithm"""
        return env_factory(env_id, self.slowness)

    def create(self, env_id: str, mode: Mode, **arguments: Any) -> Any:
        # Any of ours takes these.
        algorithm: Any = self.algorithm
        return algorithm(
            self.policy or policy_for(env_id),
            self.env(env_id),
            n_samplers=self.n_samplers,
            envs_per_sampler=self.envs_per_sampler,
            mode=mode,
            **{"learner": self.learner, **arguments},
        )


@dataclass(frozen=True)
class VecEnvContender:
    """
    One of SB3's algorithms. It takes ``normalize``, arguments of ``VecNormalize``, as ours do.

    :param vec_env: name of the VecEnv's class
    :param n_envs: its number of environments
    :param slowness: how slow its environments are; None for as they are
    :param algorithm: its class
    :param library: stands before its name, where that is not SB3
    :param policy: name of its policy; None for the one that suits the environment
    """

    vec_env: str
    n_envs: int
    slowness: Slowness | None = None
    algorithm: type[BaseAlgorithm] = PPO
    library: str = ""
    policy: str | None = None

    @property
    def name(self) -> str:
        return f"{self.library} {self.algorithm.__name__}, {self.vec_env}({self.n_envs})".lstrip()

    def create(self, env_id: str, mode: Mode, normalize: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        factory = env_factory(env_id, self.slowness)
        env: Any = make_vec_env(factory, self.n_envs, vec_env_cls=VEC_ENVS[self.vec_env])
        algorithm: Any = self.algorithm
        policy = self.policy or policy_for(env_id)
        return algorithm(policy, env if normalize is None else VecNormalize(env, **normalize), **arguments)


@dataclass(frozen=True)
class Trainee:
    """
    A contender with its mode and arguments, but for the seed.

    :param name: what tables and plots call it
    :param contender: the contender
    :param mode: how collection and training overlap, if they can
    :param arguments: arguments of its constructor
    :param make_callback: makes a callback that is part of it, if there is one
    """

    name: str
    contender: Contender
    mode: Mode
    arguments: Mapping[str, Any]
    make_callback: Callable[[], BaseCallback] | None = None

    def running(self, env_id: str, **others: Any) -> AbstractContextManager[Any]:
        """
        :param others: arguments that this time are others, ``mode`` among them
        :return: a context that builds the algorithm, and leaves nothing of it behind
        """
        return running(self.contender, env_id, **{"mode": self.mode, **self.arguments, **others})


@cache
def policy_for(env_id: str) -> str:
    """:return: SB3's name of the policy that suits an environment"""
    env = quiet_factory(env_id)()
    policy = policy_of(env, "ppo")
    env.close()
    return policy


def env_factory(env_id: str, slowness: Slowness | None) -> Callable[[], gym.Env]:
    """
    :param slowness: how slow it is; None for as it is
    :return: a function that builds the environment
    """
    factory = quiet_factory(env_id)
    return factory if slowness is None else slowness.factory(factory)


def running(contender: Contender, env_id: str, mode: Mode = "sync", **arguments: Any) -> AbstractContextManager[Any]:
    """
    :param contender: what to build
    :param mode: how collection and training overlap, if they can
    :return: a context that builds the algorithm on the CPU, and leaves nothing of it behind
    """
    # SB3 adds to dictionaries that it gets.
    return leaving_nothing(lambda: contender.create(env_id, mode, device="cpu", **deepcopy(arguments)))
