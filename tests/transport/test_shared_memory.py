"""Shared memory: nameless, private, never cut off, and refused rather than overdrawn."""

import fcntl
import gc
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_walle.transport import shared_memory as memory_module
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.shared_memory import SMALL, SharedMemory, anonymous_file

N_BYTES = 10_000

WITH_THE_MEMORY = """
import sys, numpy as np
from sb3_walle.transport.shared_memory import SharedMemory
memory = SharedMemory(int(sys.argv[2]), int(sys.argv[1]))
array = np.frombuffer(memory.view, np.uint8)
"""

ON_A_FULL_MACHINE = """
import os, resource
from sb3_walle.transport.shared_memory import SharedMemory
descriptors = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    SharedMemory(10_000_000)
except MemoryError as error:
    print(error)
assert os.listdir("/proc/self/fd") == descriptors
"""


def n_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def run_with(memory: SharedMemory, program: str) -> subprocess.CompletedProcess:
    """Run a program that has the memory's descriptor and finds its contents in ``array``."""
    command = [sys.executable, "-c", WITH_THE_MEMORY + program, str(memory.fd), str(memory.nbytes)]
    return subprocess.run(command, pass_fds=[memory.fd], capture_output=True, text=True, check=False)


def test_new_memory_is_zeroed_and_of_the_size_asked_for() -> None:
    memory = SharedMemory(N_BYTES)
    assert memory.nbytes == len(memory.view) == N_BYTES
    assert not any(memory.view)


def test_memory_has_no_name() -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    memory = SharedMemory(N_BYTES)
    assert os.fstat(memory.fd).st_nlink == 0
    if before:
        assert not [path for path in set(Path("/dev/shm").iterdir()) - before if "walle" in path.name]


def test_memory_is_readable_only_by_its_owner() -> None:
    memory = SharedMemory(N_BYTES)
    assert stat.S_IMODE(os.fstat(memory.fd).st_mode) == 0o600
    assert os.fstat(memory.fd).st_uid == os.geteuid()


def test_programs_that_are_started_do_not_inherit_the_memory() -> None:
    assert not os.get_inheritable(SharedMemory(N_BYTES).fd)


@pytest.mark.parametrize("n_bytes", [0, N_BYTES - 1, N_BYTES + 1])
def test_no_process_can_change_the_size_of_the_memory(n_bytes: int) -> None:
    memory = SharedMemory(N_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, n_bytes)
    assert os.fstat(memory.fd).st_size == N_BYTES


def test_no_process_can_make_the_memory_read_only_for_the_others() -> None:
    memory = SharedMemory(N_BYTES)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_all_pages_are_reserved_from_the_start() -> None:
    memory = SharedMemory(2**20)
    assert os.fstat(memory.fd).st_blocks * 512 >= memory.nbytes


def test_arrays_outlive_the_memory_that_they_are_over() -> None:
    memory = SharedMemory(N_BYTES)
    array = np.frombuffer(memory.view, np.uint8)
    array[:] = 1
    memory.close()
    array[0] = 2
    del memory
    gc.collect()
    array[1] = 3
    assert array.tolist() == [2, 3] + [1] * (N_BYTES - 2)


def test_descriptors_are_closed_with_the_last_array() -> None:
    before = n_descriptors()
    memory = SharedMemory(N_BYTES)
    array = np.frombuffer(memory.view, np.uint8)
    assert n_descriptors() > before
    del memory
    assert array[0] == 0
    del array
    assert n_descriptors() == before


def test_closing_twice_closes_no_stranger_s_descriptor() -> None:
    memory = SharedMemory(N_BYTES)
    memory.close()
    stranger = os.open(os.devnull, os.O_RDONLY)
    try:
        memory.close()
        del memory
        gc.collect()
        os.fstat(stranger)
    finally:
        os.close(stranger)


def test_two_processes_see_the_same_memory() -> None:
    memory = SharedMemory(N_BYTES)
    array = np.frombuffer(memory.view, np.uint8)
    array[:3] = 5, 6, 7
    child = run_with(memory, "print(array[:3].tolist()); array[-1] = 8")
    assert child.stdout == "[5, 6, 7]\n", child.stderr
    assert array[-1] == 8


def test_memory_survives_a_process_that_is_killed_over_it() -> None:
    memory = SharedMemory(N_BYTES)
    array = np.frombuffer(memory.view, np.uint8)
    child = run_with(memory, "array[:] = 9; import os; os.kill(os.getpid(), 9)")
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (array == 9).all()


@pytest.mark.parametrize("n_more", [-N_BYTES, -1, 1, 10 * N_BYTES])
def test_memory_of_another_size_than_announced_is_refused_and_its_descriptor_closed(n_more: int) -> None:
    memory = SharedMemory(N_BYTES)
    before = n_descriptors()
    with pytest.raises(TransportError, match=f"a size of {N_BYTES} bytes, but {N_BYTES + n_more} were announced"):
        SharedMemory(N_BYTES + n_more, os.dup(memory.fd))
    assert n_descriptors() == before


def test_what_is_no_memory_at_all_is_refused() -> None:
    with pytest.raises(TransportError, match="a size of 0 bytes"):
        SharedMemory(N_BYTES, os.open(os.devnull, os.O_RDWR))


def test_memory_is_taken_exactly_up_to_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "available_memory", lambda: SMALL + 64)
    assert SharedMemory(SMALL + 64).nbytes == SMALL + 64
    with pytest.raises(MemoryError, match="Not that much is left"):
        SharedMemory(SMALL + 65)


def test_small_blocks_are_taken_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "available_memory", lambda: pytest.fail("it was asked what is left"))
    assert SharedMemory(SMALL).nbytes == SMALL


@pytest.mark.parametrize("n_bytes", [2**50, 2**63 - 1, 2**70])
def test_more_than_the_machine_has_left_is_refused_at_once(n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked for that much, the kernel would fill the memory and then kill processes.
    monkeypatch.setattr(os, "ftruncate", lambda *_: pytest.fail("the kernel was asked for it"))
    before = n_descriptors()
    with pytest.raises(MemoryError, match=r"Could not reserve \d+\.\d MiB of shared memory .*smaller n_steps"):
        SharedMemory(n_bytes)
    assert n_descriptors() == before


def test_what_the_kernel_refuses_is_a_memory_error_that_says_what_to_do() -> None:
    child = subprocess.run([sys.executable, "-c", ON_A_FULL_MACHINE], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("Could not reserve 9.5 MiB of shared memory (")
    assert "fewer samplers" in child.stdout


def test_anonymous_file_is_empty_nameless_private_and_not_inherited() -> None:
    fd = anonymous_file()
    try:
        found = os.fstat(fd)
        assert (found.st_size, found.st_nlink) == (0, 0)
        assert not os.get_inheritable(fd)
        os.pwrite(fd, b"some words", 0)
        assert os.pread(fd, 100, 5) == b"words"
    finally:
        os.close(fd)
