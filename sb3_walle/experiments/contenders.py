"""Who takes part in the benchmark: AsyncPPO in several configurations and SB3's PPO with its VecEnvs."""

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

    def create(self, env_id: str, mode: Mode, **ppo: Any) -> PPO:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: how collection and training overlap, if they can
        :param ppo: further arguments of PPO
        :return: the algorithm, ready to collect
        """
        ...


@dataclass(frozen=True)
class AsyncContender:
    """
    AsyncPPO.

    :param n_samplers: sampler processes
    :param envs_per_sampler: environments of each
    :param learner: which update it makes
    :param slowness: how slow its environments are; None for as they are
    """

    n_samplers: int
    envs_per_sampler: int
    learner: str = "auto"
    slowness: Slowness | None = None

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"AsyncPPO, {self.n_samplers} x {self.envs_per_sampler}"

    @property
    def n_envs(self) -> int:
        """The number of environments, all samplers together."""
        return self.n_samplers * self.envs_per_sampler

    def create(self, env_id: str, mode: Mode, **ppo: Any) -> PPO:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: how collection and training overlap
        :param ppo: further arguments of AsyncPPO
        :return: the algorithm
        """
        env: Any = env_factory(env_id, self.slowness)
        return AsyncPPO(
            "MlpPolicy",
            env,
            n_samplers=self.n_samplers,
            envs_per_sampler=self.envs_per_sampler,
            mode=mode,
            **{"learner": self.learner, **ppo},
        )


@dataclass(frozen=True)
class VecEnvContender:
    """
    SB3's PPO.

    :param vec_env: name of the VecEnv's class
    :param n_envs: its number of environments
    :param slowness: how slow its environments are; None for as they are
    """

    vec_env: str
    n_envs: int
    slowness: Slowness | None = None

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"PPO, {self.vec_env}({self.n_envs})"

    def create(self, env_id: str, mode: Mode, normalize: Mapping[str, Any] | None = None, **ppo: Any) -> PPO:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: of no effect: SB3 never overlaps collection and training
        :param normalize: arguments of ``VecNormalize``, as AsyncPPO takes them; None for none
        :param ppo: further arguments of PPO
        :return: the algorithm
        """
        factory = env_factory(env_id, self.slowness)
        env: Any = make_vec_env(factory, self.n_envs, vec_env_cls=VEC_ENVS[self.vec_env])
        return PPO("MlpPolicy", env if normalize is None else VecNormalize(env, **normalize), **ppo)


def env_factory(env_id: str, slowness: Slowness | None) -> Callable[[], gym.Env]:
    """
    :param env_id: Gymnasium id of the environment
    :param slowness: how slow it is to be; None for as it is
    :return: what builds the environment
    """
    factory = quiet_factory(env_id)
    return factory if slowness is None else slowness.factory(factory)


@contextmanager
def running(contender: Contender, env_id: str, mode: Mode = "sync", **ppo: Any) -> Iterator[PPO]:
    """
    Build an algorithm, and leave nothing of it behind at the end of the block.

    :param contender: what to build
    :param env_id: Gymnasium id of the environment
    :param mode: how collection and training overlap, if they can
    :param ppo: further arguments of PPO
    :return: the algorithm
    """

    def create() -> PPO:
        with warnings.catch_warnings():
            # The last minibatch of an epoch may be a smaller one: it is for all contenders.
            warnings.filterwarnings("ignore", "You have specified a mini-batch size")
            return contender.create(env_id, mode, device="cpu", **ppo)

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
