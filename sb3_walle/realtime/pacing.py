"""Waiting for the ticks of a control rate."""

import math
import time
from typing import Protocol


class Clock(Protocol):
    """What a control loop knows of the time. Tests have one on which time passes only when it is told to."""

    def now(self) -> float:
        """:return: seconds since some moment in the past"""

    def sleep_until(self, moment: float) -> None:
        """
        Wait.

        :param moment: as :meth:`now` counts
        """


class SystemClock:
    """The clock of ``time.perf_counter()``, which all processes of a machine share on Linux."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep_until(self, moment: float) -> None:
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(left)


class Pacer:
    """
    Ticks at multiples of a period after the first one, so that errors of single waits do not add up.

    :param period: seconds from one tick to the next
    """

    def __init__(self, period: float, clock: Clock) -> None:
        self._period, self._clock = period, clock
        self._first: float | None = None
        self._n_ticks = 0

    @property
    def is_running(self) -> bool:
        """Whether there has been a tick."""
        return self._first is not None

    def start(self) -> None:
        """Tick now."""
        self._first, self._n_ticks = self._clock.now(), 0

    def stop(self) -> None:
        """Have no further tick before the next :meth:`start`."""
        self._first = None

    def wait(self) -> int:
        """
        Wait for the next tick. Ticks that have passed already are skipped, so that a late caller does not hurry.

        :return: how many ticks after the last one this is: more than 1 if some were skipped
        """
        if self._first is None:
            self.start()
        assert self._first is not None
        since_last = self._clock.now() - self._first - self._n_ticks * self._period
        # A wait ends a little late, never early: without a tolerance, rounding could turn one tick into two.
        n_ticks = max(1, math.ceil(since_last / self._period - 1e-9))
        self._n_ticks += n_ticks
        self._clock.sleep_until(self._first + self._n_ticks * self._period)
        return n_ticks
