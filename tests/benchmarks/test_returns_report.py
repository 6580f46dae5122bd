"""The comparison of returns: what its report says of known numbers, and that its figure can be drawn of any."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from returns_helpers import ASYNC_NAME, MACHINE, PPO_NAME, TINY, cells_of, is_picture

from benchmarks.returns.returns_plot import plot_learning_curves, plot_returns
from benchmarks.returns.returns_report import final_returns, format_report, time_table

NAN = float("nan")


def test_final_returns_are_the_mean_of_the_last_fifth() -> None:
    curves = np.array([[9, 9, 9, 9, 9, 9, 9, 9, 1, 3], [9] * 8 + [NAN, 4], [9] * 8 + [NAN, NAN]], dtype=float)
    assert final_returns(curves).tolist() == [2, 4]
    assert final_returns(curves[:, 5:]).tolist() == [3, 4]


def last_bins(*values: float) -> np.ndarray:
    """Runs of five bins, of which the last one is the final return."""
    return np.array([[-7.0, NAN, 0.0, 1000.0, value] for value in values])


def test_table_and_statements() -> None:
    # The interval is that of samples 1, 2, 3 and 4, 5, 6, which test_seed_noise works out, times 100.
    report = format_report(
        replace(TINY, n_seeds=3),
        {
            PPO_NAME: last_bins(400, 500, 600),
            ASYNC_NAME: last_bins(100, 200, 300),
            "AsyncPPO, 2 x 1, sync": last_bins(700, 800, 900),
            "AsyncPPO, 2 x 1, free": last_bins(500, 500, 500),
            "AsyncPPO, 2 x 1, new": last_bins(1234, NAN),
        },
        {},
        MACHINE,
    )
    assert cells_of(report, PPO_NAME) == ["3", "500", "100", "-", "-"]
    assert cells_of(report, ASYNC_NAME) == ["3", "200", "100", "-300", "-527 to -73"]
    assert cells_of(report, "AsyncPPO, 2 x 1, new") == ["1", "1,234", "-", "-", "-"]
    assert f"- {ASYNC_NAME}: below {PPO_NAME}, beyond seed noise\n" in report
    assert f"- AsyncPPO, 2 x 1, sync: above {PPO_NAME}, beyond seed noise\n" in report
    assert f"- AsyncPPO, 2 x 1, free: within the seed noise of {PPO_NAME}\n" in report
    assert f"- AsyncPPO, 2 x 1, new: not comparable with {PPO_NAME} yet" in report
    assert "n_steps=32, which makes 64 samples" in report and "not normalised" in report
    assert max(map(len, report.splitlines())) <= 120


@pytest.mark.parametrize(("scale", "shown"), [(1e6, "2,000,000"), (1, "2.000"), (0.01, "0.02000"), (0, "0")])
def test_small_returns_have_decimals(scale: float, shown: str) -> None:
    report = format_report(TINY, {PPO_NAME: last_bins(scale, 3 * scale)}, {}, MACHINE)
    assert cells_of(report, PPO_NAME)[1] == shown


def test_report_of_nothing() -> None:
    assert "No run has been finished" in format_report(TINY, {}, {}, MACHINE)
    assert cells_of(format_report(TINY, {ASYNC_NAME: last_bins(1, 2)}, {}, MACHINE), ASYNC_NAME)[0] == "2"
    assert cells_of(format_report(TINY, {PPO_NAME: last_bins(NAN)}, {}, MACHINE), PPO_NAME)[:2] == ["0", "-"]


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {PPO_NAME: np.full((2, 5), NAN)},
        {PPO_NAME: last_bins(NAN, 3), ASYNC_NAME: last_bins(1)},
        {PPO_NAME: np.array([[NAN, NAN, 1, NAN, NAN]])},
    ],
    ids=["nothing", "no episode", "gaps", "a point"],
)
def test_figure_of_gaps(curves: dict[str, np.ndarray], tmp_path: Path) -> None:
    plot_returns(TINY, curves, tmp_path / "returns.png")
    assert is_picture(tmp_path / "returns.png")
    seconds = {name: np.full_like(runs, 60.0).cumsum(axis=1) for name, runs in curves.items()}
    plot_learning_curves(TINY, curves, seconds, tmp_path / "learning_curves.png")
    assert is_picture(tmp_path / "learning_curves.png")


def test_times_are_compared_at_the_end_of_runs() -> None:
    seconds = {
        PPO_NAME: np.array([[9.0, 600.0], [1.0, 60.0], [2.0, 120.0]]),
        ASYNC_NAME: np.array([[9.0, 12.0], [9.0, 24.0], [9.0, 36.0]]),
    }
    table = time_table(seconds, PPO_NAME)
    assert cells_of(table, PPO_NAME) == ["2.00", "1.00 to 10.00", "1.00x"]
    assert cells_of(table, ASYNC_NAME) == ["0.40", "0.20 to 0.60", "5.00x"]
    assert cells_of(time_table({ASYNC_NAME: seconds[ASYNC_NAME]}, PPO_NAME), ASYNC_NAME)[-1] == "-"
