"""
Machines of a cluster on this one: each has a network interface, processes and a file system of its own, and a link to
all others that can go down.

What is made here ends with the process that :func:`in_namespaces_of_its_own` runs, however that ends.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
HEAD, PORT = "10.77.0.1", 6379
# A token protects nothing here: no one else reaches this network.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
STORE_BYTES = 100 * 2**20
START_TIMEOUT = 60.0


def what_is_missing() -> str | None:
    """:return: what this machine lacks to make others, in words"""
    if sys.platform != "linux" or os.getuid() != 0:
        return "Linux, and root, who may make network namespaces"
    missing = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} (packages util-linux and iproute2)" if missing else None


def in_namespaces_of_its_own(arguments: Sequence[str]) -> NoReturn:
    """
    Become another process, in a network of its own, which is the first of its processes: all others end with it.

    :param arguments: what that process runs Python with
    """
    os.execvp(NAMESPACES[0], [*NAMESPACES, sys.executable, *arguments])


class Machine:
    """
    A machine, with a node of the cluster.

    :param number: from 1 on
    """

    def __init__(self, number: int) -> None:
        self.number, self.address = number, f"10.77.0.{number + 1}"
        self._interface, self._link = f"machine{number}", "up"
        inside = (
            f"echo ready; read linked; ip link set lo up; ip address add {self.address}/24 dev eth0; "
            "ip link set eth0 up; exec " + " ".join(_ray_start("--address", f"{HEAD}:{PORT}", "--num-cpus", "2"))
        )
        self._process = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", inside + f" --node-ip-address {self.address}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.readline()
        _run("ip", "link", "add", self._interface, "type", "veth", "peer", "eth0", "netns", str(self._process.pid))
        _run("ip", "link", "set", self._interface, "master", "bridge", "up")
        self._process.stdin.write("linked\n")
        self._process.stdin.flush()
        text = ""
        while "runtime started" not in (line := self._process.stdout.readline()):
            text += line
            if not line:
                raise RuntimeError(f"No node of Ray has started: {text}")
        # What it has to say further must not fill the pipe.
        self._drain = subprocess.Popen(["cat"], stdin=self._process.stdout, stdout=subprocess.DEVNULL)

    @property
    def is_up(self) -> bool:
        """Whether it runs and can be reached."""
        return self._process.poll() is None and self._link == "up"

    def set_link(self, state: str) -> None:
        """
        :param state: ``"up"`` or ``"down"``
        """
        _run("ip", "link", "set", self._interface, state)
        self._link = state

    def end(self) -> None:
        """Have it vanish with all its processes, without a word."""
        for child in children(self._process.pid):
            _kill(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._drain.wait()
        # It goes with the other end, but not at once.
        subprocess.run(["ip", "link", "delete", self._interface], capture_output=True, check=False)

    def raylet(self) -> int:
        """:return: number of Ray's own process"""
        return next(pid for pid in descendants(self._process.pid) if "/raylet/raylet" in _command(pid))

    def host(self) -> int | None:
        """:return: number of the process that runs the samplers"""
        return next((pid for pid in descendants(self._process.pid) if _command(pid).startswith("ray::Host")), None)

    def samplers(self) -> list[int]:
        """:return: numbers of the samplers' processes"""
        host = self.host()
        return [] if host is None else [pid for server in children(host) for pid in children(server)]


class Machines:
    """
    A cluster: the head, which has no CPUs for samplers and where the learner runs, and machines.

    :param n_machines: how many, beside the head's
    :param n_health_checks: after how many checks without an answer, one a second, Ray takes a machine for dead
    """

    def __init__(self, n_machines: int, n_health_checks: int) -> None:
        os.environ.update(ENVIRONMENT)
        self._directory = tempfile.mkdtemp(prefix="ray")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "address", "add", f"{HEAD}/24", "dev", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        every = {"period_ms": 1000, "timeout_ms": 1000, "initial_delay_ms": 1000, "failure_threshold": n_health_checks}
        checks = json.dumps({f"health_check_{name}": value for name, value in every.items()})
        head = _ray_start("--head", "--port", str(PORT), "--num-cpus", "0", "--node-ip-address", HEAD)
        head += ["--include-dashboard", "false", "--temp-dir", self._directory, "--system-config", checks]
        with open(Path(self._directory) / "start", "w") as output:
            self._head = subprocess.Popen(head, stdout=output, stderr=output)
        deadline = time.monotonic() + START_TIMEOUT
        while "runtime started" not in (text := (Path(self._directory) / "start").read_text()):
            if self._head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray has not started: {text}")
            time.sleep(0.1)
        self.address = f"{HEAD}:{PORT}"
        self.machines = [Machine(number + 1) for number in range(n_machines)]

    def replace(self, index: int) -> None:
        """
        Have a machine vanish, if it has not already, and come back.

        :param index: which
        """
        self.machines[index].end()
        self.machines[index] = Machine(self.machines[index].number)

    def settle(self) -> None:
        """Bring back machines that are down, and wait until Ray knows which nodes there are."""
        import ray

        deadline = time.monotonic() + START_TIMEOUT
        while True:
            for index, machine in enumerate(self.machines):
                # One that was cut off for long ends as soon as it learns that it is taken for dead.
                if not machine.is_up:
                    self.replace(index)
            known = [node["NodeManagerAddress"] for node in ray.nodes() if _has_samplers(node)]
            if sorted(known) == sorted(machine.address for machine in self.machines):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"Ray does not notice what has become of its nodes: it knows {known}")
            time.sleep(0.2)

    def close(self) -> None:
        """End everything. What has escaped ends with this process."""
        for machine in self.machines:
            machine.end()
        for pid in (*descendants(self._head.pid), self._head.pid):
            _kill(pid, signal.SIGKILL)
        self._head.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def children(pid: int) -> list[int]:
    """:return: numbers of a process's children"""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """:return: numbers of a process's children, of theirs, and so on"""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def is_alive(pid: int) -> bool:
    """:return: whether a process runs, as long as its number is not another's"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _kill(pid: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def _has_samplers(node: dict) -> bool:
    return bool(node["Alive"]) and node["Resources"].get("CPU", 0) > 0


def _ray_start(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    return [*command, "--object-store-memory", str(STORE_BYTES), *arguments]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
