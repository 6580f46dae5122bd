"""A Ray cluster of several nodes on this machine, which can lose them."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing of Ray leaves this machine's loopback, so that a token protects nothing.
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def no_other_cluster(folder: str) -> None:
    """
    Have this process find no cluster. Ray looks for one among all processes of the machine, and those of other tests
    are among them.

    :param folder: for Ray's files, with a short path
    """
    os.environ.update(SETTINGS, RAY_TMPDIR=folder)
    os.environ.pop("RAY_ADDRESS", None)
    from ray._private import services

    services.find_gcs_addresses = functools.cache(set)


class RayCluster:
    """
    A head without CPUs, and nodes that may come and go.

    :param n_nodes: number of nodes
    :param cpus_per_node: CPUs that Ray believes each to have
    """

    def __init__(self, n_nodes: int, cpus_per_node: int = 2) -> None:
        os.environ.update(SETTINGS)
        import ray
        from ray.cluster_utils import Cluster

        # Paths of sockets must be short.
        self._directory = tempfile.mkdtemp(prefix="ray")
        self._cpus_per_node = cpus_per_node
        health = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": health,
                "temp_dir": self._directory,
                "object_store_memory": 100 * 2**20,
            },
        )
        self.nodes: list[Any] = []
        for _ in range(n_nodes):
            self.add_node()
        ray.init(address=self._cluster.address, log_to_driver=False)

    @property
    def address(self) -> str:
        """Address of the cluster."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        """Have another node join."""
        node = self._cluster.add_node(num_cpus=self._cpus_per_node, object_store_memory=100 * 2**20)
        self.nodes.append(node)

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

    def settle(self) -> None:
        """Wait until Ray knows which nodes there are."""
        import ray

        deadline = time.monotonic() + 120
        while self._n_alive(ray.nodes()) != len(self.nodes):
            assert time.monotonic() < deadline, "Ray does not notice what has become of its nodes"
            time.sleep(0.1)

    @staticmethod
    def _n_alive(nodes: list[dict[str, Any]]) -> int:
        return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in nodes)

    def raylet(self, index: int) -> int:
        """
        :param index: of a node
        :return: number of the process that is Ray's on that node
        """
        return int(self.nodes[index].all_processes["raylet"][0].process.pid)

    def host(self, index: int) -> int:
        """
        :param index: of a node
        :return: number of the process that runs the node's samplers
        """
        for child in _children(self.raylet(index)):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::Host"):
                    return child
        raise AssertionError(f"There is no host on node {index}")

    def samplers(self, index: int) -> list[int]:
        """
        :param index: of a node
        :return: numbers of the processes of its samplers
        """
        return [sampler for server in _children(self.host(index)) for sampler in _children(server)]

    def close(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        for index in range(len(self.nodes)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.raylet(index), signal.SIGCONT)
        processes = [process for node in (self._cluster.head_node, *self.nodes) for process in _processes(node)]
        self._cluster.shutdown()
        _wait_for(processes)
        shutil.rmtree(self._directory, ignore_errors=True)


def _processes(node: Any) -> list[subprocess.Popen]:
    return [info.process for infos in node.all_processes.values() for info in infos]


def _wait_for(processes: list[subprocess.Popen]) -> None:
    """Ray leaves zombies, which tests would take for their own."""
    for process in processes:
        process.wait(timeout=30)


@contextlib.contextmanager
def command_line_cluster(token: str) -> Iterator[str]:
    """
    A cluster of one node, as the command line starts it, that asks for a token.

    :param token: which
    :return: its address
    """
    directory, address = tempfile.mkdtemp(prefix="ray"), "127.0.0.1:6411"
    environment = {**os.environ, **SETTINGS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", "6411"]
    command += ["--num-cpus", "1", "--include-dashboard", "false", "--temp-dir", directory]
    command += ["--object-store-memory", str(100 * 2**20), "--ray-client-server-port", "6412"]
    command += ["--node-ip-address", "127.0.0.1"]
    with open(Path(directory) / "start", "w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            while "runtime started" not in (text := (Path(directory) / "start").read_text()):
                assert process.poll() is None, text
                time.sleep(0.1)
            yield address
        finally:
            for pid in (*descendants(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)


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
