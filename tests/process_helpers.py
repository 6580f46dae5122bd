"""
Programs that tests kill and look into, and what processes show of themselves.

Importing torch takes seconds. So one process imports it, and every program is forked from that one: a process of its
own, in a session of its own, that ends as an interpreter does.
"""

import gc
import importlib
import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# By what is in this variable, a program's processes are known: samplers are not in its session.
PROGRAM = "SB3_WALLE_TEST_PROGRAM"
# Generous: others may be using the machine.
DEADLINE = 60.0


def run(program: str, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess:
    """Run a program as a script's text, without a main guard."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=textwrap.dedent(program),
        capture_output=True,
        text=True,
        timeout=120,
        # For such small networks, a second thread only gets in the way.
        **{"env": {**os.environ, "OMP_NUM_THREADS": "1"}, **kwargs},
    )


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """
    Wait until something is true.

    :param condition: it is waited for until this returns something true
    :param what: what it is, for the message of a test that has waited for too long
    :param seconds: how long that is
    :return: what the condition returned
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


# What processes show of themselves


def status_fields(pid: int) -> list[str]:
    """What the kernel says of a process from its state on: state, parent, group, session; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit code."""
    return status_fields(pid)[:1] not in ([], ["Z"])


def kill(pid: int) -> None:
    """Kill a process, and wait until it is dead."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), f"process {pid} is dead")


def parent_of(pid: int) -> int:
    return int(status_fields(pid)[1])


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def members_of_session(session: int) -> list[int]:
    """Processes of a program's session that are still alive, and those that it has started in sessions of their own."""
    mark = f"{PROGRAM}={session}"
    return [
        pid
        for pid in processes()
        if is_alive(pid) and (status_fields(pid)[3:4] == [str(session)] or mark in environment_of(pid))
    ]


def environment_of(pid: int) -> list[str]:
    """The environment that a process was started with; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


def wait_until_gone(session: int) -> None:
    wait_until(lambda: not members_of_session(session), f"all of session {session} is gone")


def children_with_state(pid: int) -> dict[int, str]:
    """The children of a process, zombies included, and the state of each, as the kernel abbreviates it."""
    found = {child: status_fields(child) for child in processes()}
    return {child: fields[0] for child, fields in found.items() if fields[1:2] == [str(pid)]}


def open_descriptors(pid: int | str = "self") -> Counter[str]:
    """What a process's file descriptors refer to, and how many to each; numbers of sockets and pipes left out."""
    targets: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets[re.sub(r"\d+", "N", os.readlink(descriptor))] += 1
        except FileNotFoundError:
            # The one that the folder itself was read with.
            continue
    return targets


def shared_memory_nbytes(pid: int | str = "self") -> int:
    """Size of all shared memory without a name that a process has mapped."""
    nbytes = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "/memfd:" in line:
            start, end = line.split()[0].split("-")
            nbytes += int(end, 16) - int(start, 16)
    return nbytes


# Programs


class Program:
    """
    A program that runs.

    :param programs: where it was started
    :param pid: its process, which is also its session and its group
    :param folder: where its output goes, and its temporary files
    """

    def __init__(self, programs: "Programs", pid: int, folder: Path) -> None:
        self._programs = programs
        self.pid = pid
        self.temporary = folder / "temporary"
        self._output, self._errors = folder / "output", folder / "errors"

    @property
    def output(self) -> str:
        """What it has printed until now, if it has no terminal."""
        return self._output.read_text()

    @property
    def errors(self) -> str:
        """What it has printed on its standard error until now, if it has no terminal."""
        return self._errors.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed something."""
        wait_until(lambda: text in self.output, f"{text!r} is printed, after {self.output}{self.errors}")

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait until it has ended. Returns its exit code, or minus the number of the signal that killed it."""
        return wait_until(lambda: self._programs.exit_code(self.pid), f"{self.output}{self.errors} ends", seconds)[0]

    def check_success(self) -> None:
        """Wait until it has ended, as a program should: without an error, without a warning, and with all that it has
        started."""
        assert (self.wait(), self.errors) == (0, "")
        wait_until_gone(self.pid)


class Programs:
    """
    Starts programs, and ends what is left of them.

    :param folder: for their files
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Program] = []
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, function: Callable[..., Any], *arguments: Any, terminal: str | None = None) -> Program:
        """
        :param function: the program, a function of a module
        :param arguments: its arguments, which travel as JSON
        :param terminal: name of the terminal that it is started in; by default its output goes to files
        :return: the program
        """
        folder = self._folder / str(len(self._started))
        (folder / "temporary").mkdir(parents=True)
        for name in ("output", "errors"):
            (folder / name).touch()
        request = {
            "module": str(Path(inspect.getfile(function)).resolve()),
            "function": function.__name__,
            "arguments": arguments,
            "folder": str(folder),
            "terminal": terminal,
        }
        program = Program(self, self._ask(request), folder)
        self._started.append(program)
        return program

    def exit_code(self, pid: int) -> list[int]:
        """Exit code of a program in a list, which is empty as long as it runs."""
        return self._ask({"wait": pid})

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._started:
            for pid in members_of_session(program.pid):
                os.kill(pid, signal.SIGKILL)
        self._server.communicate(timeout=DEADLINE)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(request, default=str), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())


class Terminal:
    """A terminal without a screen: all that is typed and shown passes through here."""

    def __init__(self) -> None:
        self._user, self._programs = os.openpty()
        os.set_blocking(self._user, False)
        #: what programs open it by
        self.name = os.ttyname(self._programs)
        self._shown = b""

    @property
    def shown(self) -> str:
        """All that was shown until now."""
        try:
            while part := os.read(self._user, 65_536):
                self._shown += part
        except BlockingIOError:
            pass
        return self._shown.decode().replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        """Wait until something is shown."""
        wait_until(lambda: text in self.shown, f"{text!r} is shown, after {self.shown!r}")

    def type(self, keys: str) -> None:
        os.write(self._user, keys.encode())

    def close(self) -> None:
        """Close it, as a window is closed."""
        if self._user >= 0:
            os.close(self._user)
            os.close(self._programs)
            self._user = -1

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The process that programs are forked from


def serve() -> dict[str, Any] | None:
    """Answer requests until there are no more. Also returns in each program, with the request for it."""
    exit_codes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid = request["wait"]
            if pid not in exit_codes and (ended := os.waitpid(pid, os.WNOHANG)) != (0, 0):
                exit_codes[pid] = os.waitstatus_to_exitcode(ended[1])
            answer: Any = [exit_codes[pid]] if pid in exit_codes else []
        else:
            answer = os.fork()
            if answer == 0:
                return request
        print(json.dumps(answer), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Make this process one that looks as if a shell had started it, and run the program."""
    os.setsid()
    os.environ[PROGRAM] = str(os.getpid())
    folder, terminal = Path(request["folder"]), request["terminal"]
    for descriptor, name in enumerate((os.devnull, str(folder / "output"), str(folder / "errors"))):
        # The first terminal that the leader of a session opens is the terminal of the session.
        file = os.open(terminal or name, os.O_RDWR)
        os.dup2(file, descriptor)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ["TMPDIR"] = str(folder / "temporary")
    tempfile.tempdir = None
    module = Path(request["module"])
    sys.path.insert(0, str(module.parent))
    getattr(importlib.import_module(module.stem), request["function"])(*request["arguments"])


if __name__ == "__main__":
    importlib.import_module("torch").set_num_threads(1)
    # Test modules import the first four, and the first optimizer imports the last.
    for imported in (
        "pytest",
        "sb3_walle.algorithms.ppo",
        "sb3_walle.algorithms.dqn",
        "sb3_walle.callbacks",
        "torch._dynamo",
    ):
        importlib.import_module(imported)
    # No program is about compiling, although many would train for long enough.
    importlib.import_module("sb3_walle.updates.updater").WORTH_COMPILING = math.inf  # type: ignore[attr-defined]
    # Programs share the memory of all this as long as none of them has the collector look at it.
    gc.freeze()
    requested = serve()
    if requested is not None:
        become(requested)
