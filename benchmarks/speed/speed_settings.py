"""What the benchmark is asked for, and who takes part in it, with any algorithm."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import Trainee
from benchmarks.slow_envs import Slowness
from sb3_walle.cli.throughput import Stopwatch


@dataclass(frozen=True)
class SpeedSettings(ABC):
    """
    What to measure, and with what. All contenders have the same hyperparameters.

    :param env_id: Gymnasium id of the environment
    :param n_samplers: samplers of one environment, and environments of SB3's VecEnvs
    :param repeats: times to measure everything
    :param learner: which update ours makes
    :param skip_subproc: leave out SubprocVecEnv
    :param sbx: train with SBX, too
    :param limit_seconds: how long to measure the physical limit for
    """

    env_id: str
    n_samplers: int = 10
    repeats: int = 3
    learner: str = "compiled"
    skip_subproc: bool = False
    sbx: bool = False
    limit_seconds: float = 2.0

    @abstractmethod
    def trainees(self, slowness: Slowness | None = None) -> tuple[Trainee, ...]:
        """
        :param slowness: how slow environments are; None for as they are
        :return: ours first, and then SB3's
        """

    @abstractmethod
    def stopwatch(self, n_envs: int, on_start: Callable[[], object] | None = None) -> Stopwatch:
        """
        :param on_start: called when the measurement begins
        :return: the length of a measurement
        """

    @property
    @abstractmethod
    def collecting(self) -> Mapping[str, Any]:
        """Arguments with which algorithms only collect."""

    @property
    @abstractmethod
    def training(self) -> Mapping[str, Mapping[str, Any]]:
        """Arguments of each training that is measured, by what distinguishes it."""

    @abstractmethod
    def in_words(self) -> str:
        """:return: what all contenders have in common, in lines"""
