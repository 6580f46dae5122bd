"""The runs of a comparison of returns: who trains with which arguments, and the returns of each bin of steps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle.experiments.contenders import AsyncContender, Contender, Mode, VecEnvContender, running
from sb3_walle.experiments.returns.log import BinReturn

# What SB3's PPO collects in an iteration with one environment.
SAMPLES_PER_ITERATION = 2048
# Default of SB3's PPO.
GAMMA = 0.99
# Final returns are of the last fifth of the steps.
FINAL_PART = 5


@dataclass(frozen=True)
class ReturnsSettings:
    """
    Whom to compare on what.

    :param env_id: Gymnasium id of the environment
    :param total_timesteps: environment steps of each run, all environments together
    :param n_seeds: runs of each contender; their seeds are 0, 1, 2, ...
    :param n_samplers: AsyncPPO's samplers
    :param envs_per_sampler: environments of each sampler; SB3's PPO has as many as all samplers together
    :param modes: modes of AsyncPPO, each of which is a contender
    :param normalize: whether observations and rewards are normalised, by all contenders
    :param n_bins: bins into which the steps of a run are divided, a multiple of five
    :param ppo: arguments of PPO, for all contenders; by default SB3's, but for ``n_steps``, with which an iteration has
        as many samples as it has there with one environment
    :param async_ppo: further arguments of AsyncPPO
    """

    env_id: str
    total_timesteps: int = 200_000
    n_seeds: int = 5
    n_samplers: int = 10
    envs_per_sampler: int = 1
    modes: tuple[Mode, ...] = ("pipelined",)
    normalize: bool = False
    n_bins: int = 20
    ppo: Mapping[str, Any] = field(default_factory=dict)
    async_ppo: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_envs(self) -> int:
        """The number of environments of every contender."""
        return self.n_samplers * self.envs_per_sampler

    @property
    def n_steps(self) -> int:
        """Steps of each environment in an iteration."""
        return self.ppo.get("n_steps", max(1, SAMPLES_PER_ITERATION // self.n_envs))

    @property
    def bin_ends(self) -> tuple[int, ...]:
        """The last step of each bin."""
        return tuple(self.total_timesteps * number // self.n_bins for number in range(1, self.n_bins + 1))

    def describe(self) -> dict[str, Any]:
        """:return: what runs must have in common to be compared, as JSON-serialisable values by name"""
        return {
            "env_id": self.env_id,
            "total_timesteps": self.total_timesteps,
            "n_samplers": self.n_samplers,
            "envs_per_sampler": self.envs_per_sampler,
            "normalize": self.normalize,
            "n_bins": self.n_bins,
            **self.ppo,
            "n_steps": self.n_steps,
            **self.async_ppo,
        }


@dataclass(frozen=True)
class Trainee:
    """
    A contender with all its arguments but the seed.

    :param name: what tables and plots call it
    :param contender: the contender
    :param mode: how collection and training overlap, if they can
    :param arguments: arguments of its constructor
    """

    name: str
    contender: Contender
    mode: Mode
    arguments: Mapping[str, Any]


def trainees(settings: ReturnsSettings) -> tuple[Trainee, ...]:
    """
    :param settings: whom to compare
    :return: SB3's PPO, and AsyncPPO in each of its modes
    """
    arguments: dict[str, Any] = {**settings.ppo, "n_steps": settings.n_steps}
    if settings.normalize:
        # Rewards are divided by the spread of returns, which are discounted as the algorithm discounts them.
        arguments["normalize"] = {"gamma": settings.ppo.get("gamma", GAMMA)}
    lockstep = VecEnvContender("DummyVecEnv", settings.n_envs)
    samplers = AsyncContender(settings.n_samplers, settings.envs_per_sampler)
    # The callback that records returns looks at no infos but those that end an episode.
    async_arguments = {**arguments, "info_keys": (), **settings.async_ppo}
    asynchronous = [
        # The benchmark has no use for the mode "free", AsyncPPO has.
        Trainee(f"{samplers.name}, {mode}", samplers, mode, async_arguments)
        for mode in dict.fromkeys(settings.modes)
    ]
    return (Trainee(lockstep.name, lockstep, "sync", arguments), *asynchronous)


class ReturnRecorder(BaseCallback):
    """
    Sums up the returns of each bin of steps as soon as the bin is complete, and ends ``learn()`` with the last of them.

    The returns are those that Monitor reports, of rewards as the environments give them, normalised or not. An episode
    counts in the bin in which it ends.

    :param bin_ends: the last step of each bin, all environments together, in ascending order
    :param on_bin: called with a bin's last step and the returns of its episodes
    """

    def __init__(self, bin_ends: tuple[int, ...], on_bin: Callable[[int, list[float]], None]) -> None:
        super().__init__()
        self._ends_left = list(bin_ends)
        self._on_bin = on_bin
        self._returns: list[float] = []

    def _on_step(self) -> bool:
        # The environments took their steps at once, and all of them count as the last one: bins that end before it are
        # complete without these episodes.
        self._complete(self.num_timesteps - 1)
        self._returns += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        self._complete(self.num_timesteps)
        return bool(self._ends_left)

    def _complete(self, timesteps: int) -> None:
        while self._ends_left and self._ends_left[0] <= timesteps:
            self._on_bin(self._ends_left.pop(0), self._returns)
            self._returns = []


def train_once(
    trainee: Trainee, settings: ReturnsSettings, seed: int, on_row: Callable[[BinReturn], object]
) -> list[BinReturn]:
    """
    Train from scratch.

    :param trainee: who trains
    :param settings: on what
    :param seed: seed of everything random
    :param on_row: called with the returns of each bin, as soon as it is complete
    :return: the returns of all bins
    """
    rows: list[BinReturn] = []
    start = time.perf_counter()

    def on_bin(timesteps: int, returns: list[float]) -> None:
        mean_return = float(np.mean(returns)) if returns else float("nan")
        seconds = round(time.perf_counter() - start, 3)
        rows.append(BinReturn(seed, trainee.name, timesteps, mean_return, len(returns), seconds))
        on_row(rows[-1])

    with running(trainee.contender, settings.env_id, trainee.mode, seed=seed, **trainee.arguments) as model:
        # Networks this small are faster with one thread, in SB3 as well.
        th.set_num_threads(1)
        model.learn(settings.total_timesteps, callback=ReturnRecorder(settings.bin_ends, on_bin))
    return rows
