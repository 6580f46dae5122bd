"""A file is there whole or not at all, even if its writer dies."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from killed_at_every_call import NEW, OLD

from sb3_walle.saving import written_whole

HIDDEN = ".model.zip.unfinished"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write(path: Path | str, contents: bytes) -> None:
    with written_whole(path) as file:
        file.write(contents)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("replaces", [True, False])
def test_a_file_appears_at_the_end_of_the_block(replaces: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    if replaces:
        path.write_bytes(b"old")
    with written_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() == b"old") if replaces else not path.exists()
        assert names(tmp_path) - {"model.zip"} == {HIDDEN}
    assert path.read_bytes() == b"new" and names(tmp_path) == {"model.zip"}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("replaces", [True, False])
def test_an_exception_leaves_what_was_there(replaces: bool, error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    if replaces:
        path.write_bytes(b"old")
    with pytest.raises(error), written_whole(path) as file:
        file.write(b"half")
        raise error
    assert names(tmp_path) == ({"model.zip"} if replaces else set())
    assert not replaces or path.read_bytes() == b"old"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == {"model.zip"}


def test_what_a_kill_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    (tmp_path / HIDDEN).write_bytes(b"a much longer piece of something")
    write(tmp_path / "model.zip", b"new")
    assert (tmp_path / "model.zip").read_bytes() == b"new" and names(tmp_path) == {"model.zip"}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_permissions_that_open_gives(mask: int, tmp_path: Path) -> None:
    with umask(mask):
        (tmp_path / "opened").write_bytes(b"")
        write(tmp_path / "written", b"")
    assert permissions(tmp_path / "written") == permissions(tmp_path / "opened")


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path, b"new")
    assert permissions(path) == mode


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is write-protected for root")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("dangles", [True, False])
def test_a_symbolic_link_stays_one(dangles: bool, tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(Path("folder", "model.zip"))
    if not dangles:
        (folder / "model.zip").write_bytes(b"old")
    write(link, b"new")
    assert link.is_symlink() and (folder / "model.zip").read_bytes() == b"new"
    assert names(folder) == {"model.zip"} and names(tmp_path) == {"folder", "link"}


def test_a_relative_path_is_that_of_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with written_whole("model.zip"):
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert names(tmp_path) == {"elsewhere", "model.zip"}


def test_what_open_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "missing" / "model.zip", FileNotFoundError),
        (tmp_path / "file" / "model.zip", NotADirectoryError),
    ):
        with pytest.raises(error):
            path.open("wb")
        with pytest.raises(error):
            write(path, b"new")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(pipe, b"new")
        assert os.read(reader, 10) == b"new" and pipe.is_fifo()
    finally:
        os.close(reader)


def test_a_kill_at_any_call_leaves_a_whole_file(tmp_path: Path) -> None:
    program = Path(__file__).parent / "killed_at_every_call.py"
    for situation in ("replaces", "is new"):
        path = tmp_path / situation / "model.zip"
        path.parent.mkdir()
        arguments = [str(path), situation]
        run = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        *killed, finished = json.loads(run.stdout)
        before = OLD if situation == "replaces" else None
        assert len(killed) > 10 and {contents for contents, _ in killed} == {before, NEW}
        assert all(set(others) <= {HIDDEN} for _, others in killed)
        assert finished == [NEW, []]
