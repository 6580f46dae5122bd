"""Ticks on an absolute grid, on a clock that is no clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_plant import VirtualClock

from sb3_walle.realtime.histogram import Histogram
from sb3_walle.realtime.pacing import Pacer, SystemClock

PERIOD = 0.02


@given(st.lists(st.floats(0.0, 5 * PERIOD), max_size=30))
def test_ticks_lie_on_the_grid_and_never_closer_than_a_period(delays: list[float]) -> None:
    clock = VirtualClock()
    pacer = Pacer(PERIOD, clock)
    pacer.start()
    first, last, n_ticks = clock.time, clock.time, 0
    for delay in delays:
        clock.pass_by(delay)
        n_ticks += pacer.wait()
        assert clock.time == pytest.approx(first + n_ticks * PERIOD, abs=1e-9)
        assert clock.time - last >= PERIOD - 1e-9
        # The next tick that has not passed, and none after it.
        assert clock.time - last < max(delay, PERIOD) + PERIOD + 1e-9
        last = clock.time


def test_errors_of_single_waits_do_not_add_up() -> None:
    class LateClock(VirtualClock):
        def sleep_until(self, moment: float) -> None:
            super().sleep_until(moment + 0.001)

    clock = LateClock()
    pacer = Pacer(PERIOD, clock)
    pacer.start()
    began = clock.time
    assert [pacer.wait() for _ in range(1000)] == [1] * 1000
    assert clock.time - began == pytest.approx(1000 * PERIOD + 0.001)


def test_tick_after_a_stop_begins_a_new_grid() -> None:
    clock = VirtualClock()
    pacer = Pacer(PERIOD, clock)
    pacer.start()
    pacer.wait()
    pacer.stop()
    clock.pass_by(10.37)
    began = clock.time
    assert (pacer.wait(), clock.time) == (1, pytest.approx(began + PERIOD))


def test_system_clock_waits() -> None:
    clock = SystemClock()
    moment = clock.now() + 0.01
    clock.sleep_until(moment)
    assert moment <= clock.now()
    clock.sleep_until(moment - 1.0)


@given(st.lists(st.floats(0.01, 1000.0), min_size=1), st.floats(0.0, 1.0))
def test_quantile_is_right_to_within_a_bin(values: list[float], share: float) -> None:
    histogram = Histogram(0.001, 1e6)
    for value in values:
        histogram.add(value)
    rank = max(1, -(-share * len(values) // 1))
    exact = sorted(values)[int(rank) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.021)
    assert histogram.largest == max(values)
    assert histogram.n_values == len(values)


def test_histogram_counts_what_is_out_of_range_at_its_ends() -> None:
    histogram, other = Histogram(1.0, 10.0), Histogram(1.0, 10.0)
    for value in (0.0, 0.5, 2.0, 1e9):
        histogram.add(value)
    other.add(3.0)
    histogram.merge([other])
    assert (histogram.counts[0], histogram.counts[-1], histogram.n_values) == (2, 1, 5)
    assert histogram.edges[0] == 1.0 and histogram.edges[-1] >= 10.0
    histogram.clear()
    assert histogram.n_values == 0 and histogram.largest == 0.0
