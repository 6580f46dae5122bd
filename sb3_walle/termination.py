"""Being told to terminate, as schedulers of shared machines and containers do it, is a chance to save the model."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# What a shell reports of a process that a signal has ended.
SIGNAL_EXIT_CODE = 128
_is_terminating = False


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """
    Turn SIGTERM into ``SystemExit`` for the length of the block, so that ``finally`` and ``with`` do their work: by
    default the system would end the process on the spot. Programs that handle the signal themselves are left alone;
    outside of the main thread, signals cannot be handled.
    """
    global _is_terminating
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    # A program that has caught the exit before, and trains again, has decided not to end.
    _is_terminating = False
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_terminating() -> bool:
    """:return: whether the process was told to terminate while it was training, and has not begun to train again"""
    return _is_terminating


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    global _is_terminating
    _is_terminating = True
    raise SystemExit(SIGNAL_EXIT_CODE + number)
