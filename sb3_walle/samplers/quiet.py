"""Keeping N samplers from giving the same warning N times."""

import contextlib
import ctypes
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

# There is one standard output for all threads: one that is held back inside of another would never come back.
_lock = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """
    Hold back what this process prints or warns of, also from native libraries such as MuJoCo.

    If an exception is raised inside, what was held back is printed after all: it may explain it.
    """
    _flush()
    with _lock, open(os.memfd_create("output") if hasattr(os, "memfd_create") else os.devnull, "w+b") as held_back:
        saved = [(stream, os.dup(stream)) for stream in (1, 2)]
        try:
            for stream, _ in saved:
                os.dup2(held_back.fileno(), stream)
            with warnings.catch_warnings():
                # Not to a notebook or a test that collects warnings, but to where they are held back.
                warnings.showwarning = _print_warning
                yield
        except BaseException:
            _flush()
            held_back.seek(0)
            os.write(saved[1][1], held_back.read())
            raise
        finally:
            _flush()
            for stream, original in saved:
                os.dup2(original, stream)
                os.close(original)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # What native libraries print waits in C's own buffers.
    ctypes.CDLL(None).fflush(None)
