"""Results of many runs in a file that grows while they are made, and from which the work can continue."""

import csv
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from sb3_walle.cli.arguments import UsageError

Row = TypeVar("Row")


@dataclass(frozen=True)
class RowFormat(Generic[Row]):
    """
    How rows look in the file.

    :param what: what is in the file, for error messages
    :param columns: the columns' names, and the types of what is in them: ``str``, ``int`` or ``float``
    :param make: makes a row of the values of all columns
    :param values: the values of a row
    :param run: which run a row is of
    """

    what: str
    columns: Mapping[str, type]
    make: Callable[..., Row]
    values: Callable[[Row], Sequence[Any]]
    run: Callable[[Row], Hashable]

    def cells(self, row: Row) -> list[str]:
        """:return: its cells, which are read back as the same values; empty for NaN"""
        return [self._cell(kind, value) for kind, value in zip(self.columns.values(), self.values(row), strict=True)]

    def parse(self, cells: Sequence[str]) -> Row:
        """
        :param cells: the cells of a line
        :raises ValueError: if they are something else
        """
        return self.make(*(self._value(kind, cell) for kind, cell in zip(self.columns.values(), cells, strict=True)))

    @staticmethod
    def _cell(kind: type, value: Any) -> str:
        if kind is float:
            # A number's shortest representation is read back as the same number.
            return "" if math.isnan(value) else repr(float(value))
        return str(value)

    @staticmethod
    def _value(kind: type, cell: str) -> Any:
        return float(cell or "nan") if kind is float else kind(cell)


def read_rows(path: Path, row_format: RowFormat[Row]) -> list[Row]:
    """
    Read a file of rows.

    :param row_format: how they look
    :return: its rows; a last line that was cut short, as by a power failure, is left out
    :raises UsageError: if it is a file of something else
    """
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    table = list(csv.reader(lines))
    columns = list(row_format.columns)
    if table and table[0] != columns:
        raise UsageError(f"'{path}' is not a file of {row_format.what}: its columns are not {', '.join(columns)}")
    rows = []
    for number, cells in enumerate(table[1:], 2):
        try:
            rows.append(row_format.parse(cells))
        except ValueError as error:
            raise UsageError(f"line {number} of '{path}' cannot be read: {','.join(cells)}") from error
    return rows


class RunLog(Generic[Row]):
    """
    The rows of all runs. Those of a run count when its last one is there.

    What runs left behind that never came to their last row is removed from the file: they begin anew.

    :param path: the file, which is made if there is none
    :param row_format: how rows look in it
    :param n_rows: rows of a run
    :raises UsageError: if the file is one of something else
    """

    def __init__(self, path: Path, row_format: RowFormat[Row], n_rows: int) -> None:
        self.path, self.row_format, self.n_rows = path, row_format, n_rows
        #: rows of each run, in the order in which they began
        self._runs: dict[Hashable, list[Row]] = {}
        for row in read_rows(path, row_format) if path.exists() else []:
            self._runs.setdefault(row_format.run(row), []).append(row)
        self._runs = {run: rows for run, rows in self._runs.items() if len(rows) == n_rows}
        # Not in place: if the process ends meanwhile, one of the two files is whole.
        new = path.with_name(f"{path.name}.new")
        with new.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row_format.columns)
            self._write(file, (row for rows in self._runs.values() for row in rows))
        new.replace(path)

    def add(self, row: Row) -> None:
        """
        Write a row at once.

        :param row: the next row of its run
        """
        self._runs.setdefault(self.row_format.run(row), []).append(row)
        with self.path.open("a", newline="") as file:
            self._write(file, [row])

    def is_finished(self, run: Hashable) -> bool:
        """:return: whether all its rows are there"""
        return len(self._runs.get(run, ())) == self.n_rows

    def finished_runs(self) -> list[list[Row]]:
        """:return: the rows of each finished run, in the order in which they began"""
        return [rows for run, rows in self._runs.items() if self.is_finished(run)]

    def _write(self, file: TextIO, rows: Iterable[Row]) -> None:
        csv.writer(file, lineterminator="\n").writerows(self.row_format.cells(row) for row in rows)
