"""How much memory is left: on the machine, and in the control groups that a container confines its processes to."""

from collections.abc import Iterator
from math import inf
from pathlib import Path, PurePosixPath

# Of each version of Linux's control groups: their folder, the files with limit and usage in bytes, and the line of
# "memory.stat" with the bytes in use that the kernel takes back when it needs them.
_VERSION_1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_memory(root: Path = Path("/")) -> float:
    """
    :param root: the folder that takes the place of ``/``
    :return: bytes of memory that can be used without taking any away from a process; infinite if the system does not
        tell
    """
    on_machine = _value(root / "proc/meminfo", "MemAvailable:") * 1024
    return min([on_machine, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[float]:
    for line in _lines(root / "proc/self/cgroup"):
        # As in "4:cpu,memory:/the/group". Version 2 names no controllers.
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "?", "")
        if controllers == "" or "memory" in controllers.split(","):
            base, *files = _VERSION_1 if controllers else _VERSION_2
            for folder in _with_parents(root / base, group):
                yield _left_in_group(folder, *files)


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


def _left_in_group(folder: Path, limit_file: str, usage_file: str, reclaimable: str) -> float:
    limit, usage = _value(folder / limit_file), _value(folder / usage_file)
    if usage == inf:
        # Where the system does not tell what is in use, the limit holds all the same.
        return limit
    taken_back = _value(folder / "memory.stat", reclaimable)
    used = usage if taken_back == inf else max(0.0, usage - taken_back)
    return max(0.0, limit - used)


def _value(file: Path, name: str = "") -> float:
    """The number on the line of a file that begins with a name; infinite if there is none, or a word such as "max"."""
    for line in _lines(file):
        if line.startswith(f"{name} ") or not name:
            number = line.removeprefix(name).removesuffix("kB").strip()
            return float(number) if number.isdecimal() else inf
    return inf


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
