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
from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.environments import quiet_factory

Mode = Literal["sync", "pipelined", "free"]

VEC_ENVS: dict[str, type[DummyVecEnv | SubprocVecEnv]] = {"DummyVecEnv": DummyVecEnv, "SubprocVecEnv": SubprocVecEnv}


@dataclass(frozen=True)
class BenchmarkSettings:
    """
    What to measure. All contenders have the same hyperparameters.

    :param env_id: Gymnasium id of the environment
    :param n_samplers: samplers of one environment, and environments of SB3's VecEnvs
    :param envs_per_sampler: environments of each sampler in the second configuration, which has one sampler a CPU
    :param samples_per_iteration: environment steps of an iteration, all environments together
    :param n_epochs: passes over the samples of an iteration
    :param batch_size: samples of a minibatch
    :param iterations: iterations of each measurement, after one to warm up
    :param repeats: times to measure everything
    :param skip_subproc: leave out SubprocVecEnv
    :param limit_seconds: how long to measure the physical limit for, in seconds
    """

    env_id: str
    n_samplers: int = 10
    envs_per_sampler: int = 8
    samples_per_iteration: int = 20480
    n_epochs: int = 10
    batch_size: int = 64
    iterations: int = 3
    repeats: int = 3
    skip_subproc: bool = False
    limit_seconds: float = 2.0


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
    """

    n_samplers: int
    envs_per_sampler: int

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
        :param ppo: further arguments of PPO
        :return: the algorithm
        """
        env: Any = quiet_factory(env_id)
        return AsyncPPO(
            "MlpPolicy",
            env,
            n_samplers=self.n_samplers,
            envs_per_sampler=self.envs_per_sampler,
            mode=mode,
            **ppo,
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


def async_contenders(settings: BenchmarkSettings) -> tuple[AsyncContender, ...]:
    """
    The configurations of AsyncPPO.

    :param settings: what to measure
    :return: many samplers of one environment, and one sampler a CPU with several environments
    """
    both = AsyncContender(settings.n_samplers, 1), AsyncContender(available_cpus(), settings.envs_per_sampler)
    return both if both[0] != both[1] else both[:1]


def vec_env_contenders(settings: BenchmarkSettings) -> tuple[VecEnvContender, ...]:
    """
    The configurations of SB3's PPO.

    :param settings: what to measure
    :return: as many environments as the first configuration of AsyncPPO in each VecEnv; and as many as the second in
        the VecEnv that such a number suits best, because wider ones collect faster
    """
    contenders = [VecEnvContender("DummyVecEnv", settings.n_samplers)]
    if not settings.skip_subproc:
        contenders.append(VecEnvContender("SubprocVecEnv", settings.n_samplers))
    contenders.append(VecEnvContender("DummyVecEnv", async_contenders(settings)[-1].n_envs))
    return tuple(dict.fromkeys(contenders))


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
