"""Who comes first where a control loop and the learner want the same CPU."""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import partial

# Above all processes without real-time scheduling, below the threads of the kernel that handle interrupts (50).
_FIFO_PRIORITY = 10
_NICENESS, _LEARNER_NICENESS = -15, 10
_PR_SET_TIMERSLACK = 29


def come_first() -> None:
    """
    Give the calling thread priority over others, as far as the user may: real-time scheduling, or a lower niceness.
    What it starts does not inherit real-time scheduling.
    """
    # How much later than asked for the kernel may end a sleep: by default 50 microseconds.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if not _is_permitted(_be_real_time):
        _is_permitted(partial(os.setpriority, os.PRIO_PROCESS, 0, _NICENESS))


def may_come_first() -> bool:
    """:return: whether :func:`come_first` would be permitted real-time scheduling"""
    permitted: list[bool] = []
    # The priority of a thread ends with the thread.
    probe = threading.Thread(target=lambda: permitted.append(_is_permitted(_be_real_time)))
    probe.start()
    probe.join()
    return permitted[0]


class GivingWay:
    """
    The learner gives way to control loops that may not come first themselves: its threads get a higher niceness, and
    the processes that it starts inherit that. The loops have to be in the same session, because Linux shares the CPUs
    evenly between sessions, and each session's share by niceness (autogroup, see sched(7)).
    """

    def __init__(self) -> None:
        self._niceness_before: dict[int, int] = {}

    def begin(self) -> None:
        """Give way, if that is necessary."""
        if self._niceness_before or may_come_first():
            return
        for thread in map(int, os.listdir("/proc/self/task")):
            before = os.getpriority(os.PRIO_PROCESS, thread)
            if _is_permitted(partial(os.setpriority, os.PRIO_PROCESS, thread, max(before, _LEARNER_NICENESS))):
                self._niceness_before[thread] = before

    def end(self) -> None:
        """Give way no longer. Linux lets only privileged users take a niceness back; for others, it stays."""
        while self._niceness_before:
            _is_permitted(partial(os.setpriority, os.PRIO_PROCESS, *self._niceness_before.popitem()))


def _be_real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_FIFO_PRIORITY))


def _is_permitted(change: Callable[[], object]) -> bool:
    try:
        change()
    except OSError:
        # Not permitted, or the thread has ended. Priorities are best effort.
        return False
    return True
