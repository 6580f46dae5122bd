"""The returns of training runs in a file that grows while they train, and from which a comparison can go on."""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from sb3_walle.experiments.environments import UsageError

COLUMNS = ("seed", "contender", "timesteps", "return", "episodes", "seconds")


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


def format_row(row: BinReturn) -> list[object]:
    """
    :param row: returns of a bin
    :return: cells of the file's line
    """
    # A number's shortest representation is read back as the same number.
    mean_return = "" if math.isnan(row.mean_return) else repr(float(row.mean_return))
    return [row.seed, row.contender, row.timesteps, mean_return, row.n_episodes, repr(float(row.seconds))]


def parse_row(cells: Sequence[str]) -> BinReturn:
    """
    :param cells: cells of a line of the file
    :return: returns of a bin
    :raises ValueError: if they are something else
    """
    seed, contender, timesteps, mean_return, n_episodes, seconds = cells
    returns = float(mean_return or "nan"), int(n_episodes)
    return BinReturn(int(seed), contender, int(timesteps), *returns, float(seconds))


def read_rows(path: Path) -> list[BinReturn]:
    """
    Read a file of returns.

    :param path: the file
    :return: its rows; a last line that was cut short, as by a power failure, is left out
    :raises UsageError: if it is something else than a file of returns
    """
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    table = list(csv.reader(lines))
    if table and tuple(table[0]) != COLUMNS:
        raise UsageError(f"'{path}' is not a file of returns: its columns are not {', '.join(COLUMNS)}")
    rows = []
    for number, cells in enumerate(table[1:], 2):
        try:
            rows.append(parse_row(cells))
        except ValueError as error:
            raise UsageError(f"line {number} of '{path}' cannot be read: {','.join(cells)}") from error
    return rows


class ReturnsLog:
    """
    The rows of all runs. Those of a run count when its last bin is there.

    What runs left behind that never came to their last bin is removed from the file: they begin anew.

    :param path: the file, which is made if there is none
    :param n_bins: bins of a run
    :raises UsageError: if the file is something else than a file of returns
    """

    def __init__(self, path: Path, n_bins: int) -> None:
        self.path, self.n_bins = path, n_bins
        #: rows of each run by seed and contender, in the order in which they began
        self._runs: dict[tuple[int, str], list[BinReturn]] = {}
        for row in read_rows(path) if path.exists() else []:
            self._runs.setdefault((row.seed, row.contender), []).append(row)
        self._runs = {run: rows for run, rows in self._runs.items() if len(rows) == n_bins}
        # Not in place: whatever happens meanwhile, one of the two files is whole.
        new = path.with_name(f"{path.name}.new")
        with new.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(COLUMNS)
            self._write(file, (row for rows in self._runs.values() for row in rows))
        new.replace(path)

    def add(self, row: BinReturn) -> None:
        """
        Write a row at once.

        :param row: returns of the next bin of a run
        """
        self._runs.setdefault((row.seed, row.contender), []).append(row)
        with self.path.open("a", newline="") as file:
            self._write(file, [row])

    def is_finished(self, seed: int, contender: str) -> bool:
        """
        :param seed: seed of a run
        :param contender: who trained
        :return: whether all its rows are there
        """
        return len(self._runs.get((seed, contender), ())) == self.n_bins

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
        for (seed, contender), rows in self._runs.items():
            if self.is_finished(seed, contender):
                values.setdefault(contender, []).append([value(row) for row in rows])
        return {contender: np.array(runs) for contender, runs in values.items()}

    @staticmethod
    def _write(file: TextIO, rows: Iterable[BinReturn]) -> None:
        csv.writer(file, lineterminator="\n").writerows(format_row(row) for row in rows)
