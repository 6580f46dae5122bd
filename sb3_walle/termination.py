"""Being told to terminate, as schedulers of shared machines and containers do it, is a chance to save the model."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# What a shell reports of a process that a signal has ended.
SIGNAL_EXIT_CODE = 128


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """
    Turn SIGTERM into ``SystemExit`` for the length of the block, so that ``finally`` and ``with`` do their work: by
    default the system would end the process on the spot. Programs that handle the signal themselves are left alone;
    outside of the main thread, signals cannot be handled.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(SIGNAL_EXIT_CODE + number)
