"""Who takes part in the benchmark: AsyncPPO in several configurations and SB3's PPO with its VecEnvs."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_walle import AsyncPPO
from sb3_walle.experiments.environments import quiet_factory

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
    """

    n_samplers: int
    envs_per_sampler: int
    learner: str = "auto"

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
        env: Any = quiet_factory(env_id)
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
    """

    vec_env: str
    n_envs: int

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"PPO, {self.vec_env}({self.n_envs})"

    def create(self, env_id: str, mode: Mode, **ppo: Any) -> PPO:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param mode: of no effect: SB3 never overlaps collection and training
        :param ppo: further arguments of PPO
        :return: the algorithm
        """
        env = make_vec_env(quiet_factory(env_id), self.n_envs, vec_env_cls=VEC_ENVS[self.vec_env])
        return PPO("MlpPolicy", env, **ppo)


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
    # A contender that changes the number of PyTorch's threads must not change it for those after it.
    n_threads = th.get_num_threads()
    with warnings.catch_warnings():
        # The last minibatch of an epoch may be a smaller one: it is for all contenders.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        model = contender.create(env_id, mode, device="cpu", **ppo)
    env = model.get_env()
    assert env is not None
    try:
        yield model
    finally:
        env.close()
        del model, env
        gc.collect()
        th.set_num_threads(n_threads)
