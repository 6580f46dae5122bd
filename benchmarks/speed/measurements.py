"""Numbers that repeat, and their medians."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TypeAlias

from benchmarks.speed.sbx_contenders import SBX

#: a quantity, the contender, and its value
Found: TypeAlias = tuple[str, str, float]


@dataclass(frozen=True)
class Measurement:
    """
    One number.

    :param part: the part of the benchmark that it belongs to
    :param quantity: what was measured, with its unit
    :param contender: whose number it is
    :param repeat: in which repeat, from 1
    :param value: the number
    """

    part: str
    quantity: str
    contender: str
    repeat: int
    value: float


class Medians:
    """
    The medians over the repeats of a part.

    :param found: its numbers
    """

    def __init__(self, found: Iterable[Found]) -> None:
        values: dict[tuple[str, str], list[float]] = {}
        for quantity, contender, value in found:
            values.setdefault((quantity, contender), []).append(value)
        self._medians = {key: median(several) for key, several in values.items()}

    @property
    def quantities(self) -> list[str]:
        """What was measured, in the order of the measurements."""
        return list(dict.fromkeys(quantity for quantity, _ in self._medians))

    @property
    def contenders(self) -> list[str]:
        """Who was measured, in the order of the measurements."""
        return list(dict.fromkeys(contender for _, contender in self._medians))

    def of(self, quantity: str) -> dict[str, float]:
        """:return: the medians by contender"""
        return {contender: value for (of, contender), value in self._medians.items() if of == quantity}

    def get(self, quantity: str, contender: str) -> float | None:
        """:return: the median; None if there is none"""
        return self._medians.get((quantity, contender))


def is_sb3s(contender: str) -> bool:
    """:return: whether the name of a contender is one of SB3's"""
    return not contender.startswith(("Async", SBX))


def medians_of(measurements: Iterable[Measurement], part: str) -> Medians:
    """:return: the medians of this part"""
    return Medians((each.quantity, each.contender, each.value) for each in measurements if each.part == part)


def write_measurements(measurements: Iterable[Measurement], path: Path) -> None:
    """
    Write every single measurement.

    :param path: the CSV file, which is replaced
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Measurement))
        writer.writerows(map(astuple, measurements))
