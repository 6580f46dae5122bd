"""What the learner tells samplers while they work."""

import math
import os

from sb3_walle.transport.control import CONTROL_NBYTES, MemoryControl, MemoryControlBoard
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.shared_memory import SharedMemory


def test_samplers_read_what_the_learner_writes() -> None:
    memory = PrivateMemory(CONTROL_NBYTES)
    board = MemoryControlBoard(memory)
    early, late = MemoryControl(memory), MemoryControl(memory)
    assert (early.run, early.latest_version, early.chunk_seconds) == (0, -1, math.inf)
    board.start_run()
    board.announce(7)
    board.limit_chunks(0.25)
    for control in (early, late):
        assert (control.run, control.latest_version, control.chunk_seconds) == (board.run, 7, 0.25) == (1, 7, 0.25)
    board.limit_chunks(0)
    assert early.chunk_seconds == math.inf


def test_a_forked_copy_of_the_learner_starts_no_run() -> None:
    memory = SharedMemory(CONTROL_NBYTES)
    board = MemoryControlBoard(memory)
    pid = os.fork()
    if pid == 0:
        board.start_run()
        os._exit(0)
    os.waitpid(pid, 0)
    assert MemoryControl(memory).run == 0
