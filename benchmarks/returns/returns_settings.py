"""What a comparison of returns is asked for, of any algorithm."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from benchmarks.contenders import AsyncContender, Mode, Trainee, VecEnvContender

# Final returns are of the last fifth of the steps.
FINAL_PART = 5


@dataclass(frozen=True)
class ReturnsSettings(ABC):
    """
    Which contenders to compare on what.

    :param env_id: Gymnasium id of the environment
    :param total_timesteps: environment steps of each run, all environments together
    :param n_seeds: runs of each contender; their seeds are 0, 1, 2, ...
    :param n_samplers: our samplers
    :param envs_per_sampler: environments of each sampler; SB3's algorithm has as many as all samplers together
    :param modes: our modes, each of which is a contender
    :param normalize: whether observations and rewards are normalised, by all contenders, or arguments of
        ``VecNormalize``
    :param n_bins: bins into which the steps of a run are divided, a multiple of five
    """

    #: threads with which torch makes updates; ``None`` for as many as it likes
    n_threads: ClassVar[int | None] = None

    env_id: str
    total_timesteps: int = 200_000
    n_seeds: int = 5
    n_samplers: int = 10
    envs_per_sampler: int = 1
    modes: tuple[Mode, ...] = ("pipelined",)
    normalize: bool | Mapping[str, Any] = False
    n_bins: int = 20

    @property
    def n_envs(self) -> int:
        """The number of environments of every contender."""
        return self.n_samplers * self.envs_per_sampler

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
            **self.describe_algorithm(),
        }

    @abstractmethod
    def describe_algorithm(self) -> dict[str, Any]:
        """:return: the same of the algorithm alone"""

    @abstractmethod
    def algorithm_in_words(self) -> list[str]:
        """:return: how the algorithm is set, in lines"""

    def conclusions(self, finals: Mapping[str, np.ndarray]) -> list[str]:
        """
        :param finals: the final returns of each contender's seeds
        :return: what else the report says of them, in lines
        """
        return []

    @abstractmethod
    def trainees(self) -> tuple[Trainee, ...]:
        """:return: SB3's algorithm first, and ours in each of its modes"""

    def trainees_of(
        self,
        lockstep: VecEnvContender,
        samplers: AsyncContender,
        arguments: Mapping[str, Any],
        of_ours: Mapping[str, Any],
    ) -> tuple[Trainee, ...]:
        """
        :param lockstep: SB3's algorithm
        :param samplers: ours
        :param arguments: arguments of both
        :param of_ours: further arguments of ours
        :return: SB3's algorithm first, and ours in each of its modes
        """
        # The callback that records returns looks at no infos but those that end an episode.
        ours = {**arguments, "info_keys": (), **of_ours}
        modes = dict.fromkeys(self.modes)
        return (
            Trainee(lockstep.name, lockstep, "sync", arguments),
            *(Trainee(f"{samplers.name}, {mode}", samplers, mode, ours) for mode in modes),
        )
