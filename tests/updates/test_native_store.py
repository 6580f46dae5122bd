"""Where programs are kept, who may write there, and how many there are."""

import os
import stat
from pathlib import Path

import pytest

from sb3_walle.updates.native import store
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE, MAX_PROGRAMS, ProgramStore
from sb3_walle.updates.unsupported import Unsupported

VARIABLES = (DIRECTORY_VARIABLE, "XDG_CACHE_HOME", "HOME")


def keep(programs: ProgramStore, key: str, used: float) -> None:
    """Put something there that was used at some time."""
    programs.path(key).write_text(key)
    os.utime(programs.path(key), (used, used))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(VARIABLES, "SB3_WALLE_CACHE_DIR", id="what the user says"),
        pytest.param(("XDG_CACHE_HOME", "HOME"), "XDG_CACHE_HOME/sb3_walle", id="the user's cache"),
        pytest.param(("HOME",), "HOME/.cache/sb3_walle", id="the cache of most users"),
    ],
)
def test_programs_are_kept_in(
    given: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / name) if name in given else "")
    assert ProgramStore().path("key").parent == tmp_path / expected
    assert [path.name for path in tmp_path.iterdir()] == [Path(expected).parts[0]]


def test_directory_is_the_same_one_when_the_process_has_gone_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DIRECTORY_VARIABLE, "programs")
    programs = ProgramStore()
    monkeypatch.chdir("/")
    assert programs.path("key").parent == tmp_path / "programs"


def test_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(DIRECTORY_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(Unsupported, match=f"no home directory .* Set {DIRECTORY_VARIABLE} to a directory of your own"):
        ProgramStore()


def test_directory_is_made_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ProgramStore(tmp_path / "above" / "programs")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "above" / "programs").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_directory_that_others_may_write_to_is_refused(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(Unsupported, match=f"others may write to '{tmp_path}'.*Set {DIRECTORY_VARIABLE}"):
        ProgramStore(tmp_path)


def test_directory_that_others_may_read_is_not_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ProgramStore(tmp_path)


def test_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(store.os, "getuid", lambda: somebody_else)
    with pytest.raises(Unsupported, match="others may write to"):
        ProgramStore(tmp_path)


def test_write_protected_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        # As root. What is not allowed to others is found out by this.
        monkeypatch.setattr(store.os, "access", lambda *_: False)
    with pytest.raises(Unsupported, match=f"'{tmp_path}' is write-protected. Set {DIRECTORY_VARIABLE}"):
        ProgramStore(tmp_path)


@pytest.mark.parametrize("within", ["", "programs"])
def test_path_that_is_or_leads_through_a_file_is_refused(within: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(Unsupported, match=rf"nothing can be kept in '{path / within}' \(.+\)"):
        ProgramStore(path / within)


def test_program_is_there_until_it_is_removed(tmp_path: Path) -> None:
    programs = ProgramStore(tmp_path)
    assert not programs.has("key")
    programs.path("key").write_text("program")
    assert programs.has("key") and not programs.has("another")
    programs.remove("key")
    assert not programs.has("key")
    # Another process may have been faster.
    programs.remove("key")


def test_only_what_was_used_last_is_kept(tmp_path: Path) -> None:
    programs = ProgramStore(tmp_path)
    n_too_many = 3
    # The names are in no order that has to do with time.
    order = [f"{37 * number % 101:03}" for number in range(MAX_PROGRAMS + n_too_many)]
    for number, key in enumerate(order):
        keep(programs, key, used=1000.0 + number)
    programs.make_room()
    assert {path.stem for path in tmp_path.iterdir()} == set(order[n_too_many:])
    assert MAX_PROGRAMS == 64


def test_what_somebody_has_used_again_stays(tmp_path: Path) -> None:
    programs = ProgramStore(tmp_path)
    for number in range(MAX_PROGRAMS + 1):
        keep(programs, str(number), used=1000.0 + number)
    programs.note_use("0")
    programs.make_room()
    assert programs.has("0") and not programs.has("1") and programs.has("2")


def test_use_of_what_is_gone_is_no_error(tmp_path: Path) -> None:
    ProgramStore(tmp_path).note_use("gone")
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_programs_is_removed(tmp_path: Path) -> None:
    programs = ProgramStore(tmp_path)
    (tmp_path / "notes.txt").touch()
    os.utime(tmp_path / "notes.txt", (0, 0))
    for number in range(MAX_PROGRAMS + 1):
        keep(programs, str(number), used=1000.0 + number)
    programs.make_room()
    assert (tmp_path / "notes.txt").exists() and len(list(tmp_path.iterdir())) == MAX_PROGRAMS + 1
