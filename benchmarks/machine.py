"""Where experiments run."""

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import stable_baselines3
import torch as th

import sb3_walle
from sb3_walle.backends.limits import available_cpus


@dataclass(frozen=True)
class Machine:
    """
    Where the benchmark ran.

    :param processor: name of the processor
    :param n_cpus: CPUs that the benchmark could use
    :param system: name of the operating system
    :param versions: versions of Python and of the packages, by name
    :param date: date of the measurements, as ISO 8601
    :param load: processes that wanted to run before the benchmark began (load average of the last minute); more than a
        few tenths of one mean that something else ran too, and that the numbers say little
    """

    processor: str
    n_cpus: int
    system: str
    versions: dict[str, str]
    date: str
    load: float

    def in_words(self) -> str:
        """:return: all of it, to follow the name of what was done there, in two lines"""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"on {self.n_cpus} CPUs ({self.processor}), {self.system}, {self.date}, load {self.load:.1f} before it "
            f"began\n{versions}"
        )


def describe_machine() -> Machine:
    """
    Look around.

    :return: where the benchmark runs
    """
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    versions = {
        "Python": platform.python_version(),
        "PyTorch": th.__version__,
        "Stable-Baselines3": stable_baselines3.__version__,
        "sb3_walle": sb3_walle.__version__,
    }
    today = date.today().isoformat()
    return Machine(processor, available_cpus(), platform.system(), versions, today, os.getloadavg()[0])
