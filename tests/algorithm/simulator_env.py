"""An environment with a process of its own, and what decides how much of the CPUs a process gets. Imports no torch."""

import os
import subprocess
from pathlib import Path
from typing import Any

from toy_envs import StampedEnv


def scheduling_of(pid: int) -> dict[str, Any]:
    """All that decides how much of the CPUs a process gets, its session apart."""
    return {
        "niceness": os.getpriority(os.PRIO_PROCESS, pid),
        "policy": os.sched_getscheduler(pid),
        "cpus": os.sched_getaffinity(pid),
    }


def autogroup_of(pid: int) -> str:
    """Which processes the kernel treats as one when it shares the CPUs; empty if it has no such groups."""
    path = Path(f"/proc/{pid}/autogroup")
    return path.read_text() if path.exists() else ""


class WithSimulator(StampedEnv):
    """An environment that has started a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._simulator = subprocess.Popen(["sleep", "600"])

    def seen(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Session, group and scheduling of the sampler, and of the process that the environment has started."""
        pids = os.getpid(), self._simulator.pid
        return [(os.getsid(pid), autogroup_of(pid), scheduling_of(pid)) for pid in pids]

    def close(self) -> None:
        self._simulator.kill()
        self._simulator.wait()
