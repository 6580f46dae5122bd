"""The learner's end of the process that compiles."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.unsupported import MAX_LENGTH, Unsupported

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from sb3_walle.updates.native.compile_process import main; main(int(sys.argv[2]))"
)
# One compiler at a time, in the same process: others would wait for cores that samplers need.
_ENVIRONMENT = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class Build:
    """
    A program that is being compiled.

    The process ends by itself, with all that it has started, when this object or the whole learner is gone.

    :param blueprint: what to compile
    :param path: where to put the program
    :raises Unsupported: if no process can be started
    """

    def __init__(self, blueprint: Blueprint, path: Path) -> None:
        self._started, self._ended = time.monotonic(), 0.0
        # Open for as long as this object is.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        # Not through the pipe, which would block the learner if it does not hold all of it.
        with tempfile.TemporaryFile() as job:
            job.write(pickle.dumps((blueprint, path)))
            job.seek(0)
            try:
                self._process = self._start(job.fileno())
            except OSError as error:
                self._output.close()
                raise Unsupported(f"the compiler cannot be started: {error.strerror}") from error

    def _start(self, job: int) -> "subprocess.Popen[bytes]":
        # Python overlooks entries of other types, such as Path, too.
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, path, str(job)],
            # Nothing comes through it but its end.
            stdin=subprocess.PIPE,
            pass_fds=(job,),
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT},
            # A group of its own: it ends with all compilers that it has started.
            start_new_session=True,
        )

    @property
    def seconds(self) -> float:
        """How long it has been compiling, or was when it was noticed to have ended."""
        return (self._ended or time.monotonic()) - self._started

    def is_done(self, wait: bool = False) -> bool:
        """
        Whether the program is there; with ``wait``, return only then.

        :raises Unsupported: if it could not be compiled
        """
        if wait:
            self._process.wait()
        if self._process.poll() is None:
            return False
        self._ended = self._ended or time.monotonic()
        if self._process.returncode != 0:
            self._output.seek(0)
            output = self._output.read().decode(errors="replace")
            raise Unsupported(f"the compiler failed: {_reason(self._process.returncode, output)}")
        return True

    def close(self) -> None:
        """End the process, finished or not."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        # It may be importing, or not have noticed because a fork of this process has the other end, too.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._output.close()

    def __del__(self) -> None:
        if hasattr(self, "_process") and not self._output.closed:
            self.close()


def _reason(exit_code: int, output: str) -> str:
    """What most likely is the reason, among all that a compiler has said."""
    if exit_code < 0:
        return f"it was killed by {signal.Signals(-exit_code).name}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line] or lines
    return errors[-1][:MAX_LENGTH] if errors else f"exit code {exit_code}"
