"""Time that other guests of the host have taken from this machine's processors."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

#: with more than this share of the processors' time stolen, a run is repeated
MAX_STEAL = 0.01
MAX_TRIES = 3
STAT = Path("/proc/stat")
_STEAL = 7
# After these, the kernel repeats what guests of this machine have taken.
_N_KINDS = 8


class WithSteal(Protocol):
    """The outcome of a run."""

    @property
    def steal(self) -> float:
        """Share of the processors' time that other guests of the host have taken."""
        ...


Outcome = TypeVar("Outcome", bound=WithSteal)


def with_little_steal(run: Callable[[], Outcome]) -> Outcome:
    """:return: what the first run with little steal returns, or that with the least"""
    tries: list[Outcome] = []
    for _ in range(MAX_TRIES):
        tries.append(run())
        if tries[-1].steal <= MAX_STEAL:
            break
        print(f"repeated: {tries[-1].steal:.1%} of the processors' time was stolen", file=sys.stderr)
    return min(tries, key=lambda each: each.steal)


class Steal:
    """:param share: of all processors' time while it was watched; not a number before that is over"""

    def __init__(self) -> None:
        self.share = float("nan")


@contextmanager
def watching_steal() -> Iterator[Steal]:
    steal, before = Steal(), _ticks()
    try:
        yield steal
    finally:
        spent = [after - earlier for after, earlier in zip(_ticks(), before, strict=True)]
        steal.share = spent[_STEAL] / max(sum(spent), 1)


def _ticks() -> list[int]:
    """What all processors together have done, by kind."""
    return [int(word) for word in STAT.read_text().splitlines()[0].split()[1 : 1 + _N_KINDS]]
