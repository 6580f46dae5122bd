"""Who takes part in an experiment: our algorithms in several configurations, and SB3's with their VecEnvs."""

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import gymnasium as gym
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_walle import AsyncPPO
from sb3_walle.experiments.environments import quiet_factory
from sb3_walle.experiments.slow_envs import Slowness

AlgorithmT = TypeVar("AlgorithmT", bound=BaseAlgorithm)
Mode = Literal["sync", "pipelined", "free"]

VEC_ENVS: dict[str, type[DummyVecEnv | SubprocVecEnv]] = {"DummyVecEnv": DummyVecEnv, "SubprocVecEnv": SubprocVecEnv}


class Contender(Protocol):
    """Something that trains, or at least collects experience."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def n_envs(self) -> int:
        """The number of environments, all samplers or processes together."""
        ...

    def create(self, env_id: str, mode: Mode, **arguments: Any) -> Any:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: how collection and training overlap, if they can
        :param arguments: further arguments of the algorithm
        :return: the algorithm, ready to collect
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
    """

    n_samplers: int
    envs_per_sampler: int
    learner: str = "auto"
    slowness: Slowness | None = None
    algorithm: type[BaseAlgorithm] = AsyncPPO

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.algorithm.__name__}, {self.n_samplers} x {self.envs_per_sampler}"

    @property
    def n_envs(self) -> int:
        """The number of environments, all samplers together."""
        return self.n_samplers * self.envs_per_sampler

    def create(self, env_id: str, mode: Mode, **arguments: Any) -> Any:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: how collection and training overlap
        :param arguments: further arguments of the algorithm
        :return: the algorithm
        """
        # Any of ours takes these.
        algorithm: Any = self.algorithm
        return algorithm(
            "MlpPolicy",
            env_factory(env_id, self.slowness),
            n_samplers=self.n_samplers,
            envs_per_sampler=self.envs_per_sampler,
            mode=mode,
            **{"learner": self.learner, **arguments},
        )


@dataclass(frozen=True)
class VecEnvContender:
    """
    One of SB3's algorithms.

    :param vec_env: name of the VecEnv's class
    :param n_envs: its number of environments
    :param slowness: how slow its environments are; None for as they are
    :param algorithm: its class
    """

    vec_env: str
    n_envs: int
    slowness: Slowness | None = None
    algorithm: type[BaseAlgorithm] = PPO

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.algorithm.__name__}, {self.vec_env}({self.n_envs})"

    def create(self, env_id: str, mode: Mode, normalize: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: of no effect: SB3 never overlaps collection and training
        :param normalize: arguments of ``VecNormalize``, as our algorithms take them; None for none
        :param arguments: further arguments of the algorithm
        :return: the algorithm
        """
        factory = env_factory(env_id, self.slowness)
        env: Any = make_vec_env(factory, self.n_envs, vec_env_cls=VEC_ENVS[self.vec_env])
        algorithm: Any = self.algorithm
        return algorithm("MlpPolicy", env if normalize is None else VecNormalize(env, **normalize), **arguments)


@dataclass(frozen=True)
class Trainee:
    """
    A contender with its mode and arguments, but for the seed.

    :param name: what tables and plots call it
    :param contender: the contender
    :param mode: how collection and training overlap, if they can
    :param arguments: arguments of its constructor
    """

    name: str
    contender: Contender
    mode: Mode
    arguments: Mapping[str, Any]


def env_factory(env_id: str, slowness: Slowness | None) -> Callable[[], gym.Env]:
    """
    :param env_id: Gymnasium id of the environment
    :param slowness: how slow it is to be; None for as it is
    :return: what builds the environment
    """
    factory = quiet_factory(env_id)
    return factory if slowness is None else slowness.factory(factory)


@contextmanager
def running(contender: Contender, env_id: str, mode: Mode = "sync", **arguments: Any) -> Iterator[Any]:
    """
    Build an algorithm, and leave nothing of it behind at the end of the block.

    :param contender: what to build
    :param env_id: Gymnasium id of the environment
    :param mode: how collection and training overlap, if they can
    :param arguments: further arguments of the algorithm
    :return: the algorithm
    """

    def create() -> BaseAlgorithm:
        with warnings.catch_warnings():
            # The last minibatch of an epoch may be a smaller one: it is for all contenders.
            warnings.filterwarnings("ignore", "You have specified a mini-batch size")
            created: BaseAlgorithm = contender.create(env_id, mode, device="cpu", **arguments)
            return created

    with leaving_nothing(create) as model:
        yield model


@contextmanager
def leaving_nothing(create: Callable[[], AlgorithmT]) -> Iterator[AlgorithmT]:
    """
    Leave nothing of an algorithm behind at the end of the block.

    :param create: builds it
    :return: the algorithm
    """
    # A contender that changes the number of PyTorch's threads must not change it for those after it.
    n_threads = th.get_num_threads()
    model = create()
    env = model.get_env()
    assert env is not None
    try:
        yield model
    finally:
        env.close()
        del model, env
        gc.collect()
        th.set_num_threads(n_threads)
