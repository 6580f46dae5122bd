"""Who comes first: a control loop, with real-time scheduling where it may have that; else the learner gives way."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sb3_walle.realtime import priority


def in_thread(function: Callable[[], Any]) -> Any:
    """What a function returns that may change the priority of its thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def come_first() -> tuple[int, int]:
    priority.come_first()
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture
def _without_real_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    yield


def test_control_loop_has_real_time_scheduling_where_it_may() -> None:
    scheduler, _ = in_thread(come_first)
    expected = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK if priority.may_come_first() else os.SCHED_OTHER
    assert scheduler == expected
    # The probe leaves the thread that asks as it was.
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_control_loop_has_a_lower_niceness_otherwise(_without_real_time: None) -> None:
    scheduler, niceness = in_thread(come_first)
    assert (scheduler, niceness) == (os.SCHED_OTHER, -15 if os.geteuid() == 0 else 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a privileged user can take a niceness back")
def test_learner_gives_way_if_control_loops_may_not_come_first(_without_real_time: None) -> None:
    before, giving_way = os.getpriority(os.PRIO_PROCESS, 0), priority.GivingWay()
    other = threading.Event()
    thread = threading.Thread(target=other.wait)
    thread.start()
    try:
        giving_way.begin()
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        assert len(threads) >= 2
        assert {os.getpriority(os.PRIO_PROCESS, number) for number in threads} == {max(10, before)}
    finally:
        giving_way.end()
        other.set()
        thread.join()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_learner_does_not_give_way_to_what_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "may_come_first", lambda: True)
    before, giving_way = os.getpriority(os.PRIO_PROCESS, 0), priority.GivingWay()
    giving_way.begin()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    giving_way.end()
