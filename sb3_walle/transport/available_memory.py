"""How much memory is left: on the machine, and in the control groups that a container confines its processes to."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class _ControlGroups:
    """
    Where a version of Linux's control groups says how much memory is in use.

    :param folder: where the groups lie
    :param limit: file with the most bytes that a group may use
    :param usage: file with the bytes that it uses
    :param reclaimable: line of ``memory.stat`` with the bytes of these that the kernel takes back when it needs them
    """

    folder: str
    limit: str
    usage: str
    reclaimable: str


_VERSION_1 = _ControlGroups(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_VERSION_2 = _ControlGroups("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_memory(root: Path = Path("/")) -> float:
    """
    :param root: the folder that takes the place of ``/``
    :return: bytes of memory that can be used without taking any away from a process; infinite if the system does not
        tell
    """
    return min([_left_on_machine(root), *_left_in_groups(root)])


def _left_on_machine(root: Path) -> float:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return _number(value.removesuffix("kB")) * 1024
    return inf


def _left_in_groups(root: Path) -> Iterator[float]:
    for line in _lines(root / "proc/self/cgroup"):
        # As in "4:cpu,memory:/the/group". Version 2 names no controllers.
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "?", "")
        if controllers == "" or "memory" in controllers.split(","):
            version = _VERSION_1 if controllers else _VERSION_2
            for folder in _with_parents(root / version.folder, group):
                yield _left_in_group(folder, version)


def _with_parents(root_group: Path, group: str) -> list[Path]:
    """
    The folders of a group and of all that it is part of, whose limits hold for it, too. A container may see nothing but
    its own group, and that as the root: then only the root's folder exists.
    """
    names = [name for name in PurePosixPath(group).parts if name != "/"]
    if ".." in names:
        # The group lies outside of what can be seen from here.
        names = []
    return [root_group.joinpath(*names[:depth]) for depth in range(len(names) + 1)]


def _left_in_group(folder: Path, version: _ControlGroups) -> float:
    limit = _first_number(folder / version.limit)
    if limit == inf:
        return inf
    usage = _first_number(folder / version.usage)
    # Where the system does not tell what is in use, the limit holds all the same.
    used = 0.0 if usage == inf else max(0.0, usage - _reclaimable(folder, version))
    return max(0.0, limit - used)


def _reclaimable(folder: Path, version: _ControlGroups) -> float:
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == version.reclaimable:
            return _number(value)
    return 0.0


def _first_number(file: Path) -> float:
    return _number(next(iter(_lines(file)), ""))


def _number(text: str) -> float:
    """The number that a text says; infinite if it says none, as with "max"."""
    stripped = text.strip()
    return float(stripped) if stripped.isdecimal() else inf


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's; none if it does not exist or cannot be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
