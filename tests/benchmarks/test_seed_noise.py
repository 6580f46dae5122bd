"""Welch's t-interval against numbers worked out by hand and quantiles from printed tables."""

import numpy as np
import pytest

from benchmarks.returns.seed_noise import Difference, compare_means, t_quantile


@pytest.mark.parametrize(
    ("degrees_of_freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (4, 2.77645), (8, 2.30600), (30, 2.04227), (1000, 1.96234)],
)
def test_quantiles_of_printed_tables(degrees_of_freedom: float, quantile: float) -> None:
    assert t_quantile(0.95, degrees_of_freedom) == pytest.approx(quantile, rel=1e-5)


def test_quantile_of_another_confidence() -> None:
    assert t_quantile(0.5, 1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "difference", "verdict"),
    [
        # Squared errors of the means 1/3 and 1/3, so 4 degrees of freedom: 2.77645 * sqrt(2/3) = 2.26696.
        ([4, 5, 6], [1, 2, 3], Difference(3, 0.73304, 5.26696), "above"),
        ([1, 2, 3], [4, 5, 6], Difference(-3, -5.26696, -0.73304), "below"),
        ([3, 4, 5], [2, 3, 4], Difference(1, -1.26696, 3.26696), "within"),
        # 0 and 4/3, so 2 degrees of freedom, where Student's test has 4: 4.30265 * sqrt(4/3) = 4.96828.
        ([5, 5, 5], [2, 4, 6], Difference(1, -3.96828, 5.96828), "within"),
        # No noise at all.
        ([500, 500], [500, 500, 500], Difference(0, 0, 0), "within"),
        ([500, 500], [400, 400], Difference(100, 100, 100), "above"),
    ],
)
def test_difference(first: list[float], second: list[float], difference: Difference, verdict: str) -> None:
    found = compare_means(np.array(first), np.array(second))
    assert found is not None
    assert found.verdict == verdict
    for name, value in vars(difference).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize(("first", "second"), [([1], [2, 3]), ([2, 3], [1]), ([], [1, 2])])
def test_one_seed_has_no_noise_to_compare_with(first: list[float], second: list[float]) -> None:
    assert compare_means(np.array(first), np.array(second)) is None


def test_interval_covers_the_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = compare_means(rng.normal(3, 1, 5), rng.normal(1, 4, 4))
        assert found is not None
        covered += found.low <= 2 <= found.high
    assert 0.92 < covered / 400 < 0.98
