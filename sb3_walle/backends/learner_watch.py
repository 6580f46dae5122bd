"""Tells at once that the learner's process is dying."""

import os

# Of the numbers in /proc/PID/stat after the name: the state, and the kernel's flags.
_STATE, _FLAGS = 0, 6
_DEAD = (b"Z", b"X")
_PF_EXITING = 0x4


class LearnerWatch:
    """
    Looks at what the kernel says of a process. When a process is killed, its channels are closed only after its memory
    was given back, which takes a large one longer than a tick.

    :param pid: the process
    """

    def __init__(self, pid: int) -> None:
        try:
            self._file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # It may be dead, or hidden. The end of the channel tells in any case.
            self._file = -1

    def is_dying(self) -> bool:
        """Whether the process is dead, or on the way to it."""
        if self._file < 0:
            return False
        try:
            fields = os.pread(self._file, 1024, 0).rpartition(b")")[2].split()
        except ProcessLookupError:
            return True
        return fields[_STATE] in _DEAD or bool(int(fields[_FLAGS]) & _PF_EXITING)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
