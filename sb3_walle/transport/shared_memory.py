"""Anonymous memory that processes share by handing on a file descriptor."""

import fcntl
import mmap
import os

from sb3_walle.transport.available_memory import available_memory
from sb3_walle.transport.errors import TransportError

# What is smaller, most messages for example, is taken without asking what is left, as any other memory of a process is:
# asking takes longer than allocating.
SMALL = 2**20


class SharedMemory:
    """
    A block of memory without a name: it lives as long as a process maps it or holds its file descriptor.

    Because it has no name there is nothing to unlink, no other program can open it, and even a ``kill -9`` of every
    process that uses it leaves nothing behind.

    :param nbytes: size in bytes
    :param fd: file descriptor of an existing block to map; owned by this object from now on.
        By default a new, zeroed block is made.
    :raises MemoryError: if the machine does not have that much memory left
    :raises TransportError: if the existing block has another size
    """

    def __init__(self, nbytes: int, fd: int | None = None) -> None:
        self.nbytes = nbytes
        self.fd = _allocate(nbytes) if fd is None else fd
        if fd is not None:
            _check_size(fd, nbytes)
        # The mapping goes away with the last array over it, so that no array can ever point to unmapped memory.
        self.view = memoryview(mmap.mmap(self.fd, nbytes))

    def close(self) -> None:
        """Close the file descriptor. Arrays over the memory stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()


def anonymous_file() -> int:
    """
    :return: descriptor of a new, empty file without a name, which is gone when the last descriptor is closed; only
        this user may open it
    """
    fd = os.memfd_create("sb3_walle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o600)
    return fd


def _check_size(fd: int, nbytes: int) -> None:
    """Touching a page behind the end of the file is a SIGBUS."""
    found = os.fstat(fd).st_size
    if found != nbytes:
        raise TransportError(f"A block of shared memory has a size of {found} bytes, but {nbytes} were announced")


def _allocate(nbytes: int) -> int:
    if nbytes > SMALL and nbytes > available_memory():
        # The kernel would not refuse. It would give out page after page, and then kill the largest process.
        raise _cannot_reserve(nbytes, "Not that much is left")
    fd = anonymous_file()
    try:
        os.ftruncate(fd, nbytes)
        # Without this, memory that runs out later is a SIGBUS in the process that touches the page first.
        os.posix_fallocate(fd, 0, nbytes)
        # No process that is handed the descriptor can cut the memory off under the others.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        os.close(fd)
        raise _cannot_reserve(nbytes, str(error.strerror)) from error
    return fd


def _cannot_reserve(nbytes: int, reason: str) -> MemoryError:
    return MemoryError(
        f"Could not reserve {nbytes / 2**20:.1f} MiB of shared memory ({reason}). "
        "Use a smaller n_steps, fewer samplers, or a machine with more memory."
    )
