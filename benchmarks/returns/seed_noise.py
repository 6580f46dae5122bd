"""Whether two algorithms differ by more than one of them differs from seed to seed."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
MINIMUM_SEEDS = 2

Verdict = Literal["above", "below", "within"]


@dataclass(frozen=True)
class Difference:
    """
    By how much the mean of one sample exceeds that of another.

    :param mean: the difference
    :param low: lower end of its confidence interval
    :param high: upper end of its confidence interval
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Where the first sample lies: above or below the second by more than noise, or within the noise."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "within"


def t_quantile(confidence: float, degrees_of_freedom: float) -> float:
    """
    Student's t-distribution.

    :param confidence: a probability
    :param degrees_of_freedom: of the distribution, at least 1
    :return: the distance from 0 within which the variable lies with that probability
    """
    # With t = sqrt(n) tan(x), the density of t is proportional to cos(x)^(n - 1) in x, between two finite ends.
    angles = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angles) ** (degrees_of_freedom - 1)
    # The trapezoidal rule.
    probability = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = np.interp(confidence, probability / probability[-1], angles)
    return math.sqrt(degrees_of_freedom) * math.tan(angle)


def compare_means(first: np.ndarray, second: np.ndarray) -> Difference | None:
    """
    Compare two samples with Welch's t-interval, which does not take their variances to be equal.

    All runs are taken to be independent. Two of the same seed begin with the same weights, which makes them a little
    alike, so that the interval is a little wider than it need be.

    :param first: one value a seed
    :param second: one value a seed, of as many seeds or of another number
    :return: the difference of the means with its interval; None if one of the samples is of fewer than two seeds,
        which do not tell how much seeds differ
    """
    if min(len(first), len(second)) < MINIMUM_SEEDS:
        return None
    difference = float(np.mean(first) - np.mean(second))
    # Squared standard errors of the two means.
    errors = np.array([np.var(sample, ddof=1) / len(sample) for sample in (first, second)])
    if not errors.any():
        return Difference(difference, difference, difference)
    # Of Welch and Satterthwaite.
    degrees_of_freedom = errors.sum() ** 2 / np.sum(errors**2 / [len(first) - 1, len(second) - 1])
    width = t_quantile(CONFIDENCE, float(degrees_of_freedom)) * math.sqrt(errors.sum())
    return Difference(difference, difference - width, difference + width)
