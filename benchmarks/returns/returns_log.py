"""The returns of training runs, in a file from which a comparison can continue."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from benchmarks.run_log import RowFormat, RunLog


@dataclass(frozen=True)
class BinReturn:
    """
    How well a run did during a bin of steps.

    :param seed: seed of the run
    :param contender: who trained
    :param timesteps: the bin's last step, all environments together; it begins after the last step of the bin before
    :param mean_return: mean return of the episodes that ended in the bin, NaN if none did
    :param n_episodes: how many ended in it
    :param seconds: time since the run began, with the construction of the algorithm and its environments
    """

    seed: int
    contender: str
    timesteps: int
    mean_return: float
    n_episodes: int
    seconds: float


RETURNS_OF_BINS = RowFormat(
    "returns",
    {"seed": int, "contender": str, "timesteps": int, "return": float, "episodes": int, "seconds": float},
    make=BinReturn,
    values=astuple,
    run=lambda row: (row.seed, row.contender),
)


class ReturnsLog(RunLog[BinReturn]):
    """
    The returns of all runs.

    :param path: the file, which is made if there is none
    :param n_bins: bins of a run
    :raises UsageError: if the file is something else than a file of returns
    """

    def __init__(self, path: Path, n_bins: int) -> None:
        super().__init__(path, RETURNS_OF_BINS, n_bins)

    def curves(self) -> dict[str, np.ndarray]:
        """
        :return: of each contender, in the order in which they began, the mean returns of all finished runs,
            ``[n_seeds, n_bins]``; NaN where no episode ended
        """
        return self._of_finished_runs(lambda row: row.mean_return)

    def seconds(self) -> dict[str, np.ndarray]:
        """
        :return: of each contender, as in :meth:`curves`, how long all finished runs took until the end of each bin,
            ``[n_seeds, n_bins]``
        """
        return self._of_finished_runs(lambda row: row.seconds)

    def _of_finished_runs(self, value: Callable[[BinReturn], float]) -> dict[str, np.ndarray]:
        values: dict[str, list[list[float]]] = {}
        for rows in self.finished_runs():
            values.setdefault(rows[0].contender, []).append([value(row) for row in rows])
        return {contender: np.array(runs) for contender, runs in values.items()}
