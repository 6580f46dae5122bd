"""How often values of each size occur: bounded, however many there are."""

import math
from collections.abc import Iterable

import numpy as np

# Each bin is two percent wider than the one below it, so that a quantile is right to within a percent.
_LOG_RATIO = math.log(1.02)


class Histogram:
    """
    Counts positive values in bins whose edges form a geometric sequence. What is below the lowest edge counts in the
    first bin, what is above the highest edge in the last one.

    :param lowest: lower edge of the first bin
    :param highest: at least the upper edge of the last bin
    """

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest = lowest
        self._last_bin = math.ceil(math.log(highest / lowest) / _LOG_RATIO) - 1
        #: number of values in each bin, ``[n_bins]``
        self.counts = np.zeros(self._last_bin + 1, dtype=np.int64)
        #: the largest value, 0 if there is none
        self.largest = 0.0

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, ascending, ``[n_bins + 1]``."""
        return self.lowest * np.exp(_LOG_RATIO * np.arange(len(self.counts) + 1))

    @property
    def n_values(self) -> int:
        """How many values were added."""
        return int(self.counts.sum())

    def add(self, value: float) -> None:
        """Count a value."""
        index = 0 if value <= self.lowest else int(math.log(value / self.lowest) / _LOG_RATIO)
        self.counts[min(index, self._last_bin)] += 1
        if value > self.largest:
            self.largest = value

    def merge(self, others: "Iterable[Histogram]") -> None:
        """Add the values of histograms with the same bins."""
        for other in others:
            self.counts += other.counts
            self.largest = max(self.largest, other.largest)

    def clear(self) -> None:
        """Forget all values."""
        self.counts[:] = 0
        self.largest = 0.0

    def quantile(self, share: float) -> float:
        """
        :param share: between 0 and 1: 0.99 for the value that 99 % of all do not exceed
        :return: the middle of the bin that holds it, or the largest value if that is less; NaN if there are no values
        """
        n_values = self.n_values
        if n_values == 0:
            return math.nan
        rank = min(max(math.ceil(share * n_values), 1), n_values)
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(self.lowest * math.exp(_LOG_RATIO * (index + 0.5)), self.largest)
