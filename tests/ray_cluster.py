"""A Ray cluster of several nodes on this machine, which can lose them; and others, for programs."""

import contextlib
import functools
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cluster.local_cluster import SETTINGS, LocalCluster


class RayCluster(LocalCluster):
    """A cluster whose nodes may vanish with all that runs on them."""

    def settle(self) -> None:
        """Wait until Ray knows which nodes there are, and the hosts of earlier tests are gone."""
        super().settle()
        gc.collect()
        deadline = time.monotonic() + 10
        while self._has_hosts() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _has_hosts(self) -> bool:
        for index in range(len(self.nodes)):
            with contextlib.suppress(AssertionError):
                self.host(index)
                return True
        return False

    def remove_node(self, index: int) -> None:
        """
        Have a node vanish, without a word.

        :param index: which
        """
        # Ray's own process ends; the host would notice that only after a while.
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self.host(index), signal.SIGKILL)
        node = self.nodes.pop(index)
        processes = _processes(node)
        self._cluster.remove_node(node, allow_graceful=False)
        _wait_for(processes)

    def close(self) -> None:
        """End everything, what is stopped too."""
        for index in range(len(self.nodes)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.raylet(index), signal.SIGCONT)
        processes = [process for node in (self._cluster.head_node, *self.nodes) for process in _processes(node)]
        super().close()
        _wait_for(processes)


def _processes(node: Any) -> list[subprocess.Popen]:
    return [info.process for infos in node.all_processes.values() for info in infos]


def _wait_for(processes: list[subprocess.Popen]) -> None:
    """Ray leaves zombies, which tests would take for their own."""
    for process in processes:
        process.wait(timeout=30)


def no_other_cluster(folder: str) -> None:
    """
    Have this process find no cluster. Ray looks for one among all processes of the machine, and those of other tests
    are among them.

    :param folder: for Ray's files, with a short path
    """
    # Workers that Ray starts for the first tasks of a program, which samplers have no use for, would only take time.
    os.environ.update(SETTINGS, RAY_TMPDIR=folder, RAY_prestart_worker_first_driver="0")
    os.environ.pop("RAY_ADDRESS", None)
    from ray._private import services

    services.find_gcs_addresses = functools.cache(set)


@contextlib.contextmanager
def command_line_cluster(token: str) -> Iterator[str]:
    """
    A cluster of one node, as the command line starts it, that asks for a token.

    :param token: which
    :return: its address
    """
    directory, port, client_port = tempfile.mkdtemp(prefix="ray"), _free_port(), _free_port()
    environment = {**os.environ, **SETTINGS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)]
    command += ["--num-cpus", "1", "--include-dashboard", "false", "--temp-dir", directory]
    command += ["--object-store-memory", str(100 * 2**20), "--ray-client-server-port", str(client_port)]
    command += ["--node-ip-address", "127.0.0.1"]
    with open(Path(directory) / "start", "w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            while "runtime started" not in (text := (Path(directory) / "start").read_text()):
                assert process.poll() is None, text
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            for pid in (*descendants(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """
    :param pid: number of a process
    :return: numbers of its children, of theirs, and so on
    """
    return [found for child in _children(pid) for found in (child, *descendants(child))]


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found
