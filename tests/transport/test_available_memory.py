"""How much memory is left, as the files of a made-up machine say."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.transport.available_memory import available_memory

MIB = 2**20
# What version 1 says where there is no limit.
NO_LIMIT = 9_223_372_036_854_771_712


class Machine:
    """
    A folder with the files that the kernel would show.

    :param root: the folder
    :param available: what the machine has left, in MiB; ``None`` if it does not tell
    """

    def __init__(self, root: Path, available: int | None = 1_000) -> None:
        self.root = root
        if available is not None:
            self.write("proc/meminfo", f"MemTotal: 9999999 kB\nMemAvailable:  {available * 1024} kB\nCached: 7 kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def belongs_to(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def group_1(self, path: str, limit: int, usage: int, inactive_file: int = 0) -> None:
        folder = f"sys/fs/cgroup/memory{path}"
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"{folder}/memory.usage_in_bytes", f"{usage}\n")
        self.write(f"{folder}/memory.stat", f"cache 5\ninactive_file 3\ntotal_inactive_file {inactive_file}\n")

    def group_2(self, path: str, limit: int | str, usage: int, inactive_file: int = 0) -> None:
        folder = f"sys/fs/cgroup{path}"
        self.write(f"{folder}/memory.max", f"{limit}\n")
        self.write(f"{folder}/memory.current", f"{usage}\n")
        self.write(f"{folder}/memory.stat", f"anon 1\ninactive_file {inactive_file}\nactive_file 2\n")

    def left(self) -> float:
        return available_memory(self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_it_is_what_the_machine_has_left(machine: Machine) -> None:
    assert machine.left() == 1_000 * MIB


def test_a_system_that_tells_nothing_has_no_limit(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == inf
    assert available_memory(tmp_path / "missing") == inf


def test_version_2_limits_the_group(machine: Machine) -> None:
    machine.belongs_to("0::/user/job")
    machine.group_2("/user/job", 500 * MIB, 200 * MIB)
    assert machine.left() == 300 * MIB


def test_version_1_limits_the_group(machine: Machine) -> None:
    machine.belongs_to("5:devices:/other", "4:cpu,memory:/docker/1", "0::/")
    machine.group_1("/docker/1", 500 * MIB, 200 * MIB)
    assert machine.left() == 300 * MIB


def test_what_files_that_are_not_read_take_in_the_cache_is_left(machine: Machine) -> None:
    machine.belongs_to("4:memory:/one", "0::/two")
    machine.group_1("/one", 500 * MIB, 450 * MIB, inactive_file=350 * MIB)
    assert machine.left() == 400 * MIB
    machine.group_2("/two", 500 * MIB, 400 * MIB, inactive_file=50 * MIB)
    assert machine.left() == 150 * MIB


def test_of_several_limits_the_tightest_counts(machine: Machine) -> None:
    machine.belongs_to("0::/outer/middle/inner")
    machine.group_2("/outer/middle/inner", 900 * MIB, 100 * MIB)
    machine.group_2("/outer/middle", "max", 100 * MIB)
    machine.group_2("/outer", 300 * MIB, 250 * MIB)
    assert machine.left() == 50 * MIB


def test_a_limit_that_is_wider_than_the_machine_does_not_matter(machine: Machine) -> None:
    machine.belongs_to("4:memory:/one", "0::/two")
    machine.group_1("/one", NO_LIMIT, 100 * MIB)
    machine.group_2("/two", 5_000 * MIB, 100 * MIB)
    assert machine.left() == 1_000 * MIB


def test_groups_that_are_not_the_process_s_own_do_not_matter(machine: Machine) -> None:
    machine.belongs_to("4:memory:/mine", "3:cpu:/yours", "0::/mine")
    machine.group_1("/yours", 10 * MIB, 0)
    machine.group_2("/yours", 10 * MIB, 0)
    machine.group_2("/mine/inner", 10 * MIB, 0)
    assert machine.left() == 1_000 * MIB


@pytest.mark.parametrize("line", ["0::/docker/1234", "0::/../sibling", "0::/"])
def test_a_container_may_see_its_own_group_as_the_root(line: str, machine: Machine) -> None:
    machine.belongs_to(line)
    machine.group_2("", 400 * MIB, 100 * MIB)
    assert machine.left() == 300 * MIB


def test_a_group_outside_of_what_can_be_seen_is_not_looked_for(machine: Machine) -> None:
    machine.belongs_to("0::/../../etc")
    machine.write("sys/etc/memory.max", "1\n")
    assert machine.left() == 1_000 * MIB


def test_a_group_that_has_used_more_than_its_limit_has_nothing_left(machine: Machine) -> None:
    machine.belongs_to("0::/full")
    machine.group_2("/full", 100 * MIB, 130 * MIB)
    assert machine.left() == 0


def test_a_limit_holds_where_the_usage_is_not_told(machine: Machine) -> None:
    machine.belongs_to("0::/silent")
    machine.write("sys/fs/cgroup/silent/memory.max", f"{100 * MIB}\n")
    assert machine.left() == 100 * MIB


def test_group_names_may_have_colons_and_commas(machine: Machine) -> None:
    machine.belongs_to("4:memory:/a:b,c", "0::/d:e")
    machine.group_1("/a:b,c", 500 * MIB, 100 * MIB)
    assert machine.left() == 400 * MIB
    machine.group_2("/d:e", 300 * MIB, 100 * MIB)
    assert machine.left() == 200 * MIB


odd_texts = ["", "\n", "max", "-1", "1 2", "0x10", "1e9", "9" * 5_000, "memory:", "4:memory", ":::", "4:memory:x/../y"]
texts = st.sampled_from(odd_texts) | st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20
)


@settings(deadline=None, max_examples=60)
@given(found=st.lists(texts, min_size=6, max_size=6))
def test_it_is_a_number_for_any_text_in_the_files(found: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    machine = Machine(tmp_path_factory.getbasetemp() / "machine", available=None)
    machine.write("proc/meminfo", f"{found[0]}\nMemAvailable: {found[1]} kB")
    machine.belongs_to(found[2], "0::/group", "4:memory:/group")
    for folder in ("sys/fs/cgroup/group", "sys/fs/cgroup/memory/group"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            machine.write(f"{folder}/{name}", found[3])
        for name in ("memory.current", "memory.usage_in_bytes"):
            machine.write(f"{folder}/{name}", found[4])
        machine.write(f"{folder}/memory.stat", f"inactive_file {found[5]}\ntotal_inactive_file {found[5]}")
    assert machine.left() >= 0


def test_this_machine_has_some_memory_left() -> None:
    assert available_memory() > 0
