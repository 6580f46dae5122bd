"""How the time of an iteration is shared between collection and learning."""

import time
from dataclasses import astuple, dataclass

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.contenders import Contender, Mode, running
from benchmarks.figures.figures_settings import FiguresSettings, Workload
from benchmarks.run_log import RowFormat


@dataclass(frozen=True)
class IterationTime:
    """
    An iteration that was measured.

    :param workload: name of the workload
    :param contender: who trained
    :param mode: how collection and training overlapped, if they could
    :param n_envs: number of environments, which is that of samplers
    :param repeat: number of the repeat, from 1
    :param iteration: number of the iteration within it, from 1
    :param collection: seconds in which the learner waited for experience
    :param learning: seconds of the update
    """

    workload: str
    contender: str
    mode: str
    n_envs: int
    repeat: int
    iteration: int
    collection: float
    learning: float


ITERATION_TIMES = RowFormat(
    "times of iterations",
    {
        "workload": str,
        "contender": str,
        "mode": str,
        "n_envs": int,
        "repeat": int,
        "iteration": int,
        "collection_seconds": float,
        "learning_seconds": float,
    },
    make=IterationTime,
    values=astuple,
    run=lambda row: (row.workload, row.contender, row.mode, row.repeat),
)


class IterationClock(BaseCallback):
    """
    Notes how long rollouts and updates take, and ends ``learn()`` after the last one.

    :param warm_up: number of iterations, at the beginning, that do not count
    :param iterations: number of those that do
    """

    class Done(Exception):
        """The last iteration is complete."""

    def __init__(self, warm_up: int, iterations: int) -> None:
        super().__init__()
        self._warm_up, self._n_iterations = warm_up, warm_up + iterations
        self._starts: list[float] = []
        self._ends: list[float] = []

    @property
    def seconds(self) -> list[tuple[float, float]]:
        """Collection and learning of each iteration that counts."""
        times = zip(self._starts, self._ends, self._starts[1:], strict=False)
        return [(end - start, following - end) for start, end, following in times][self._warm_up :]

    def _on_rollout_start(self) -> None:
        self._starts.append(time.perf_counter())
        if len(self._starts) > self._n_iterations:
            raise self.Done

    def _on_rollout_end(self) -> None:
        self._ends.append(time.perf_counter())

    def _on_step(self) -> bool:
        return True


@dataclass(frozen=True)
class Timing:
    """
    A measurement that is not made yet.

    :param workload: of which work
    :param contender: who trains
    :param mode: how collection and training overlap, if they can
    :param repeat: number of the repeat, from 1
    """

    workload: Workload
    contender: Contender
    mode: Mode
    repeat: int

    @property
    def run(self) -> tuple[str, str, str, int]:
        """What its rows have in common."""
        return self.workload.name, self.contender.name, self.mode, self.repeat

    @property
    def warm_up(self) -> int:
        """
        Iterations that do not count: the first one; and with overlap the next, whose collection had all the time of the
        first update, which may wait for a compiler.
        """
        return 1 if self.mode == "sync" else 2

    def n_timesteps(self, settings: FiguresSettings) -> int:
        """:return: environment steps that are taken, all environments together"""
        samples = settings.n_steps(self.contender.n_envs) * self.contender.n_envs
        return samples * (self.warm_up + settings.iterations)

    def measure(self, settings: FiguresSettings) -> list[IterationTime]:
        """Train for some iterations."""
        n_steps = settings.n_steps(self.contender.n_envs)
        arguments = settings.agent.arguments(self.contender, n_steps)
        clock = IterationClock(self.warm_up, settings.iterations)
        with running(self.contender, self.workload.env_id, self.mode, **arguments) as model:
            try:
                # More than needed: no algorithm must think that the measured rollouts are the last.
                model.learn((self.warm_up + settings.iterations + 2) * n_steps * model.n_envs, callback=clock)
            except IterationClock.Done:
                return [
                    IterationTime(*self.run[:3], model.n_envs, self.repeat, number, collection, learning)
                    for number, (collection, learning) in enumerate(clock.seconds, 1)
                ]
        raise AssertionError("learn() returned before it had made all iterations")
