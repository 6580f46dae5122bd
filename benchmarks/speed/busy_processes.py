"""Other people's processes, beside which something is measured."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Ends by itself when the benchmark is gone.
_PROGRAM = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


@contextmanager
def beside_busy_processes(n_processes: int) -> Iterator[None]:
    """
    Have processes compute during the block, each in a session of its own as those of other users are.

    :param n_processes: how many
    """
    command = [sys.executable, "-c", _PROGRAM, str(os.getpid())]
    busy: list[subprocess.Popen] = []
    try:
        for _ in range(n_processes):
            busy.append(subprocess.Popen(command, start_new_session=True))
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
