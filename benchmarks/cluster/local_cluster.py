"""A Ray cluster of several nodes on this machine."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

# In a network of its own nothing of Ray leaves this machine's loopback, so that a token protects nothing.
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
OBJECT_STORE_BYTES = 100 * 2**20


class LocalCluster:
    """
    A head without CPUs, and nodes that may come and go. It belongs into a network of its own
    (``tests/own_network.py``): who reaches it can have it run any code.

    :param n_nodes: number of nodes
    :param cpus_per_node: CPUs that Ray believes each to have
    """

    def __init__(self, n_nodes: int, cpus_per_node: int = 2) -> None:
        os.environ.update(SETTINGS)
        import ray
        from ray._private.utils import get_ray_address_file
        from ray.cluster_utils import Cluster

        # The cluster writes its address there. On a machine that has never had another one there is no such directory.
        Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
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
                "object_store_memory": OBJECT_STORE_BYTES,
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
        node = self._cluster.add_node(num_cpus=self._cpus_per_node, object_store_memory=OBJECT_STORE_BYTES)
        self.nodes.append(node)

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
        return host_of(self.raylet(index))

    def samplers(self, index: int) -> list[int]:
        """
        :param index: of a node
        :return: numbers of the processes of its samplers
        """
        return [sampler for server in children(self.host(index)) for sampler in children(server)]

    def close(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()
        shutil.rmtree(self._directory, ignore_errors=True)


def host_of(raylet: int) -> int:
    """
    :param raylet: number of the process that is Ray's on a node
    :return: number of the process that runs the node's samplers
    """
    for child in children(raylet):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::Host"):
                return child
    raise AssertionError("There is no host on the node")


def children(pid: int) -> list[int]:
    """
    :param pid: number of a process
    :return: numbers of its children
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found
