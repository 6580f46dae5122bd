"""The process that compiles, at a low priority, during training."""

import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import torch as th

from sb3_walle.saving import written_whole
from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.native.products import is_large
from sb3_walle.updates.native.program import with_checksum
from sb3_walle.updates.torch_private import compile_ahead_of_time, products_by_onednn

# The learner goes first, but samplers, which never stop working, would leave nothing.
NICENESS = 5
# Signals that a terminal or a supervisor sends to all processes. The learner decides what happens then.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
# What the process has to clean up, in seconds, before it is killed.
GRACE = 5.0


def main(job: int) -> None:
    """
    Compile a blueprint and put the program in its place, unless the learner ends before, which ends standard input.

    :param job: file descriptor of the pickled blueprint and path
    """
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    os.nice(NICENESS)
    learner = sys.stdin.fileno()
    with os.fdopen(job, "rb") as file:
        blueprint, path = pickle.load(file)
    with tempfile.TemporaryDirectory(prefix="sb3_walle_", ignore_cleanup_errors=True) as folder:
        threading.Thread(target=_end_with, args=(learner, folder), daemon=True).start()
        # Where compilers put what they need for themselves. torch's precompiled headers are hundreds of megabytes, of
        # which nothing must remain where the user has not asked for it.
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)
        put_in_place(compile_program(blueprint, Path(folder)), path)


def put_in_place(compiled: Path, path: Path) -> None:
    """Put a program into its place, whole or not at all. Others may be about to do the same."""
    own = path.with_name(f"{os.getpid()}-{path.name}")
    with written_whole(own) as target:
        target.write(with_checksum(compiled.read_bytes()))
    os.replace(own, path)


def compile_program(blueprint: Blueprint, folder: Path) -> Path:
    """
    Make a shared library in a folder of this process. torch's default folder is named after the graph, and others may
    compile the same.
    """
    if not blueprint.is_parallel:
        # Without a parallel region there is no thread to wake, which takes longer than a small network.
        th.set_num_threads(1)
    graph, inputs = blueprint.graph.build(), tuple(spec.empty() for spec in blueprint.inputs)
    if blueprint.uses_onednn:
        try:
            with products_by_onednn(is_large):
                return compile_ahead_of_time(graph, inputs, folder, blueprint.is_parallel)
        except Exception:
            # It takes parts of torch that may be others in another version. What torch does by itself is slower.
            traceback.print_exc()
    return compile_ahead_of_time(graph, inputs, folder, blueprint.is_parallel)


def _end_with(learner: int, folder: str) -> None:
    """End this process and the compilers that it has started when the learner hangs up, or is dead. Leave nothing."""
    # Not through sys.stdin, whose lock the interpreter needs to end.
    os.read(learner, 1)
    os.killpg(os.getpgrp(), signal.SIGTERM)
    # The main thread cleans up, too, but not before torch lets it. Until it ends, it may make new files.
    deadline = time.monotonic() + GRACE
    while os.path.exists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _stop(*_: object) -> NoReturn:
    """Clean up and end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit("it was told to end")
