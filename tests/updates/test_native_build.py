"""The process that compiles: why it fails, and that it ends, with all that it has started and written."""

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch as th
from native_helpers import members_of_group, slow_compiler, tiny_blueprint
from process_helpers import DEADLINE, Programs, is_alive, wait_until

from sb3_walle.updates.native import build
from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.native.build import Build
from sb3_walle.updates.native.compile_process import put_in_place
from sb3_walle.updates.native.program import is_whole
from sb3_walle.updates.unsupported import MAX_LENGTH, Unsupported


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return tiny_blueprint()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the process that compiles takes for the directory of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    # What torch keeps for the next time, on purpose, is not looked at.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kept_by_torch"))
    return folder


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a compiler that is slow, and fails."""
    folder = tmp_path / "of_the_compiler"
    folder.mkdir()
    monkeypatch.setenv("CXX", str(slow_compiler(folder)))
    return folder


def begin(blueprint: Blueprint, store: Path) -> Build:
    store.mkdir(exist_ok=True)
    return Build(blueprint, store / "program.so")


def group_of(build: Build) -> int:
    return build._process.pid


def wait_for_the_compiler(compiler: Path) -> None:
    wait_until((compiler / "begun").exists, "the compiler has begun")


# Failures


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        pytest.param("import os; os.kill(os.getpid(), 9)", "it was killed by SIGKILL", id="killed"),
        pytest.param(
            "import os; print('a warning', flush=True); os.kill(os.getpid(), 15)",
            "it was killed by SIGTERM",
            id="killed after a warning",
        ),
        pytest.param("raise SystemExit(3)", "exit code 3", id="silent"),
        pytest.param("print('strange'); raise SystemExit(1)", "strange", id="without an exception"),
        pytest.param(
            "print('a note\\nfile.cpp:1: Error: first\\nOSError: last\\nin a later line'); raise SystemExit(1)",
            "OSError: last",
            id="among many lines",
        ),
        pytest.param(f"raise ValueError({'x' * 1000!r})", f"ValueError: {'x' * (MAX_LENGTH - 12)}", id="endless"),
    ],
)
def test_reason_that_is_told(
    program: str, reason: str, blueprint: Blueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_PROGRAM", program)
    begun = begin(blueprint, tmp_path)
    with pytest.raises(Unsupported) as told:
        begun.is_done(wait=True)
    begun.close()
    assert str(told.value) == f"the compiler failed: {reason}"


def test_what_python_would_not_import_from_is_left_out(
    blueprint: Blueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many programs put a Path into sys.path, which has no effect there."""
    monkeypatch.setattr(build, "_PROGRAM", "import json, sys; raise SystemExit(sys.argv[1])")
    monkeypatch.setattr(sys, "path", ["first", Path("second"), "third"])
    begun = begin(blueprint, tmp_path)
    with pytest.raises(Unsupported, match=r'the compiler failed: \["first", "third"\]'):
        begun.is_done(wait=True)
    begun.close()


def test_a_job_that_no_pipe_holds_does_not_block_the_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes a second or more to begin to read, and may never do so."""
    monkeypatch.setattr(build, "_PROGRAM", "import time; time.sleep(600)")
    tiny = tiny_blueprint()
    large = replace(tiny, graph=replace(tiny.graph, constants={"large": th.rand(2**20)}))
    finished = threading.Event()

    def build_and_close() -> None:
        begin(large, tmp_path).close()
        finished.set()

    threading.Thread(target=build_and_close, daemon=True).start()
    assert finished.wait(DEADLINE)


# The end


def test_closing_ends_compilers_and_leaves_no_file(
    blueprint: Blueprint, temporary: Path, compiler: Path, tmp_path: Path
) -> None:
    """Although others have the learner's end of the pipe, as a process has that is forked during compilation."""
    begun = begin(blueprint, tmp_path / "store")
    group = group_of(begun)
    assert begun._process.stdin is not None
    copied = os.dup(begun._process.stdin.fileno())
    try:
        wait_for_the_compiler(compiler)
        assert not begun.is_done() and len(members_of_group(group)) >= 2
        # The compiler has a file of its own.
        assert [path.name for path in temporary.rglob("of_the_compiler")] == ["of_the_compiler"]
        closing = threading.Thread(target=begun.close)
        closing.start()
        closing.join(timeout=DEADLINE)
        is_closed = not closing.is_alive()
    finally:
        os.close(copied)
        closing.join()
    assert is_closed
    wait_until(lambda: not members_of_group(group), "compilers are gone")
    assert [*temporary.iterdir(), *(tmp_path / "store").iterdir()] == []
    begun.close()


def test_build_without_references_ends(blueprint: Blueprint, compiler: Path, tmp_path: Path) -> None:
    begun = begin(blueprint, tmp_path / "store")
    group = group_of(begun)
    # Long before it compiles, and hears of anything: it still imports.
    assert is_alive(group)
    del begun
    assert not is_alive(group)


def build_until_killed(compiler: str, store: str) -> None:
    os.environ.update(CXX=compiler, TORCHINDUCTOR_CACHE_DIR=str(Path(store).parent / "kept_by_torch"))
    begun = begin(tiny_blueprint(), Path(store))
    print("group", group_of(begun))
    begun.is_done(wait=True)


def test_killed_learner_takes_all_compilers_along_and_leaves_no_file(programs: Programs, tmp_path: Path) -> None:
    program = programs.start(build_until_killed, slow_compiler(tmp_path), tmp_path / "store")
    wait_for_the_compiler(tmp_path)
    program.wait_for("\n")
    group = int(program.output.split()[1])
    members = members_of_group(group)
    assert group != program.pid and len(members) >= 2
    os.kill(program.pid, signal.SIGKILL)
    wait_until(lambda: not members_of_group(group), "compilers are gone")
    assert [*program.temporary.iterdir(), *(tmp_path / "store").iterdir()] == []


def test_control_c_does_not_disturb_the_compiler_whose_failure_is_told_in_one_line(
    blueprint: Blueprint, temporary: Path, compiler: Path, tmp_path: Path
) -> None:
    begun = begin(blueprint, tmp_path / "store")
    # A group of its own: what is typed in a terminal does not get there.
    assert os.getpgid(group_of(begun)) != os.getpgrp()
    wait_for_the_compiler(compiler)
    # Others may send it to everybody all the same.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.killpg(group_of(begun), number)
    (compiler / "end").touch()
    # It continues until the compiler has answered.
    answer = r"^the compiler failed: .*No working C\+\+ compiler"
    with pytest.raises(Unsupported, match=answer) as told:
        begun.is_done(wait=True)
    assert "\n" not in str(told.value) and len(str(told.value)) < MAX_LENGTH + 50
    # It stays so, and the time stops.
    with pytest.raises(Unsupported, match=answer):
        begun.is_done()
    assert begun.seconds == begun.seconds
    begun.close()
    assert [*temporary.iterdir(), *(tmp_path / "store").iterdir()] == []


# Several at once


def put_in_place_often(compiled: str, path: str) -> None:
    for _ in range(200):
        put_in_place(Path(compiled), Path(path))


def test_many_may_put_the_same_program_into_its_place(programs: Programs, tmp_path: Path) -> None:
    """Runs that are started together compile the same, and are through at the same time."""
    store = tmp_path / "store"
    store.mkdir()
    compiled, path = tmp_path / "compiled", store / "program.so"
    compiled.write_bytes(b"program" * 1000)
    others = [programs.start(put_in_place_often, compiled, path) for _ in range(3)]
    while any(is_alive(other.pid) for other in others):
        put_in_place(compiled, path)
        assert is_whole(path) and path.read_bytes().startswith(compiled.read_bytes())
    for other in others:
        other.check_success()
    assert [found.name for found in store.iterdir()] == ["program.so"]
