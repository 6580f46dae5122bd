"""Who comes first where a control loop and the learner want the same CPU."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

# Above all processes without real-time scheduling, below the threads of the kernel that handle interrupts (50).
_FIFO_PRIORITY = 10
_NICE = -15
_LEARNER_NICE = 10
_PR_SET_TIMERSLACK = 29
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_IS_ON = Path("/proc/sys/kernel/sched_autogroup_enabled")


def come_first() -> None:
    """
    Give the calling thread priority over others, as far as the user may: real-time scheduling, or a lower niceness.
    What it starts does not inherit real-time scheduling.
    """
    # How much later than asked for the kernel may end a sleep: by default 50 microseconds.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if not _is_permitted(_be_real_time):
        _is_permitted(lambda: os.setpriority(os.PRIO_PROCESS, 0, _NICE))


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
    The learner gives way to control loops, for those that may not come first themselves.

    Linux shares the CPUs between sessions (autogroup, see sched(7)) and samplers are a session of their own, so that
    the learner's session as a whole gives way; any user may take that back. Where sessions do not count, the learner's
    threads get a higher niceness, which only a privileged user can take back.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def begin(self, are_own_session: bool) -> None:
        """
        Give way, if that is necessary.

        :param are_own_session: whether the samplers are in another session than this process
        """
        if self._undo or may_come_first():
            return
        if not (are_own_session and _is_permitted(self._lower_session)):
            for thread in map(int, os.listdir("/proc/self/task")):
                _is_permitted(lambda thread=thread: self._lower_thread(thread))  # type: ignore[misc]

    def end(self) -> None:
        """Give way no longer, as far as the user may take it back."""
        while self._undo:
            _is_permitted(self._undo.pop())

    def _lower_session(self) -> None:
        if _AUTOGROUP_IS_ON.read_text().strip() != "1":
            raise OSError("The CPUs are not shared between sessions")
        before = _AUTOGROUP.read_text().rpartition("nice ")[2].strip()
        _AUTOGROUP.write_text(str(_LEARNER_NICE))
        self._undo.append(lambda: _AUTOGROUP.write_text(before))

    def _lower_thread(self, thread: int) -> None:
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, max(before, _LEARNER_NICE))
        self._undo.append(lambda: os.setpriority(os.PRIO_PROCESS, thread, before))


def _be_real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_FIFO_PRIORITY))


def _is_permitted(change: Callable[[], object]) -> bool:
    try:
        change()
    except OSError:
        # Not permitted, or not there: in a container, say. Priorities are best effort.
        return False
    return True
