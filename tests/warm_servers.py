"""
Processes that samplers are forked from, which start at once.

Each model in a test has such a process, the fork server, and each begins with the same imports: NumPy and Gymnasium
take a quarter of a second, torch and SB3 more than one, which is longer than most tests. So one process imports them,
and every fork server is forked from that one. It is still a child of the learner's process, with its environment
variables, its folder and its output, and imports by itself what the environments need.
"""

import ctypes
import gc
import importlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from sb3_walle.backends.fork_server import IGNORED_SIGNALS, main
from sb3_walle.backends.server_handle import _SINGLE_THREADED, ServerHandle

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_REQUEST = 2**20
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from warm_servers import serve; serve(int(sys.argv[1]), json.loads(sys.argv[3]))"
)
_WITHOUT_TORCH = ("sb3_walle.backends.fork_server", "gymnasium.envs.registration", "gymnasium.wrappers")
# What most test modules import. Samplers import a test module if an environment is defined in it.
_WITH_TORCH = (
    *_WITHOUT_TORCH,
    "torch",
    "pytest",
    "hypothesis",
    "sb3_walle.algorithms.ppo",
    "sb3_walle.algorithms.dqn",
    "sb3_walle.callbacks",
)

#: numbers of the processes that fork servers are forked from
ORIGINS: set[int] = set()


@dataclass(frozen=True)
class _Request:
    """What a fork server has of the learner's process."""

    environment: dict[str, str]
    folder: str
    path: list[str]
    in_own_session: bool


class WarmServers:
    """Starts fork servers in this process's stead."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._origins: dict[bool, _Origin] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Meanwhile every fork server of this process is a warm one; not those of its children."""
        cold_init = ServerHandle.__init__

        def warm_init(handle: ServerHandle, modules: Iterable[str], *args: Any, **kwargs: Any) -> None:
            modules = tuple(modules)
            if os.getpid() != self._owner:
                cold_init(handle, modules, *args, **kwargs)
                return
            with self._lock, mock.patch("sb3_walle.backends.server_handle._start", self._origin(modules).fork):
                cold_init(handle, modules, *args, **kwargs)

        with mock.patch.object(ServerHandle, "__init__", warm_init):
            yield

    def close(self) -> None:
        for origin in self._origins.values():
            origin.close()

    def _origin(self, modules: tuple[str, ...]) -> "_Origin":
        """A process that has imported torch only if the fork server would: what samplers import is tested, too."""
        torch = any(name.partition(".")[0] in ("torch", "stable_baselines3") or "test_" in name for name in modules)
        if torch not in self._origins:
            self._origins[torch] = _Origin(_WITH_TORCH if torch else _WITHOUT_TORCH)
        return self._origins[torch]


class _Origin:
    """A process that fork servers are forked from."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._requests, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = json.dumps([str(Path(__file__).parent), *sys.path])
        with end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(end.fileno()), path, json.dumps(modules)],
                pass_fds=[end.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        ORIGINS.add(self._process.pid)

    def fork(self, channel_end: socket.socket, in_own_session: bool) -> "_ForkServer":
        """Start a fork server, as ``server_handle._start`` does."""
        request = pickle.dumps(_Request(_environment(), os.getcwd(), sys.path, in_own_session))
        libc = ctypes.CDLL(None)
        # The fork server's parent dies at once. Then this process is its parent, which the origin would be otherwise.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            with channel_end:
                socket.send_fds(self._requests, [request], [channel_end.fileno(), 1, 2])
            return _ForkServer(int(self._requests.recv(64)))
        finally:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)

    def close(self) -> None:
        self._requests.close()
        self._process.kill()
        self._process.wait()
        ORIGINS.discard(self._process.pid)


def _environment() -> dict[str, str]:
    return {**os.environ, **_SINGLE_THREADED, "CUDA_VISIBLE_DEVICES": ""}


class _ForkServer:
    """A child of this process, as ``subprocess.Popen`` is one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self._returncode is None:
            end = os.pidfd_open(self.pid)
            try:
                ended, _, _ = select.select([end], [], [], timeout)
            finally:
                os.close(end)
            if not ended:
                raise subprocess.TimeoutExpired("fork server", timeout or 0.0)
            self._returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._returncode

    def kill(self) -> None:
        if self._returncode is None:
            os.kill(self.pid, signal.SIGKILL)


# The process that fork servers are forked from


def serve(fd: int, modules: Iterable[str]) -> None:
    """Fork fork servers until there are no more requests. Also becomes each of them."""
    for ignored in IGNORED_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    # What exists by now stays in memory that all share.
    gc.freeze()
    with socket.socket(fileno=fd) as requests:
        while True:
            request, fds, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
            if not request:
                return
            pid = _fork_orphan()
            if pid == 0:
                break
            for file in fds:
                os.close(file)
            requests.send(str(pid).encode())
    _become_fork_server(*fds, pickle.loads(request))


def _fork_orphan() -> int:
    """Fork a process whose parent ends at once. Returns its number, and 0 in that process."""
    reading, writing = os.pipe()
    if between := os.fork():
        os.close(writing)
        os.waitpid(between, 0)
        with open(reading) as pipe:
            return int(pipe.read())
    os.close(reading)
    if pid := os.fork():
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.close(writing)
    return 0


def _become_fork_server(channel_end: int, output: int, errors: int, request: _Request) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    if request.in_own_session:
        os.setsid()
    for descriptor, file in ((1, output), (2, errors)):
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.path[:] = request.path
    main(channel_end)
