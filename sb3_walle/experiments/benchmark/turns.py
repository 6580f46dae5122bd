"""Measuring again and again, so that whatever happens on a machine meanwhile happens to all contenders."""

import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

from sb3_walle.experiments.benchmark.results import Measurement

#: a quantity, of whom, and its value
Found: TypeAlias = tuple[str, str, float]


def take_turns(repeats: int, measure: Callable[[], Iterator[Found]]) -> list[Measurement]:
    """
    Measure everything several times, and say on stderr how far it is.

    :param repeats: how often
    :param measure: measures everything once, the contenders one after the other
    :return: all numbers
    """
    measurements: list[Measurement] = []
    for repeat in range(1, repeats + 1):
        for quantity, contender, value in measure():
            measurements.append(Measurement(quantity, contender, repeat, value))
            number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            print(f"[{repeat}/{repeats}] {quantity}: {contender}: {number}", file=sys.stderr)
    return measurements
