"""The process that compiles, at a low priority, while training goes on."""

import os
import pickle
import shutil
import signal
import struct
import sys
import threading
from pathlib import Path

import torch as th

from sb3_walle.learners.native.blueprint import Blueprint
from sb3_walle.saving import written_whole

# The learner goes first, but samplers, which never stop working, would leave nothing.
NICENESS = 5
# Signals that a terminal or a supervisor sends to everybody. What happens then is up to the learner.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
#: what goes before a message: its length in bytes
LENGTH = struct.Struct("<Q")


def main() -> None:
    """Compile the blueprint that comes in, and put the program to the path that comes with it."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    learner = sys.stdin.fileno()
    (length,) = LENGTH.unpack(_read(learner, LENGTH.size))
    blueprint, path = pickle.loads(_read(learner, length))
    threading.Thread(target=_end_with, args=(learner,), daemon=True).start()
    compiled = compile_program(blueprint)
    with open(compiled, "rb") as source, written_whole(path) as target:
        shutil.copyfileobj(source, target)
    # torch keeps what it has compiled, too, which is of no more use.
    shutil.rmtree(compiled.parent, ignore_errors=True)


def compile_program(blueprint: Blueprint) -> Path:
    """
    :param blueprint: what to compile
    :return: the shared library that torch has made of it
    """
    from torch._inductor import aot_compile

    if not blueprint.is_parallel:
        # Without a parallel region there is no thread to wake, which takes longer than a small network.
        th.set_num_threads(1)
    inputs = tuple(spec.empty() for spec in blueprint.inputs)
    found = aot_compile(blueprint.graph.build(), inputs, options={"cpp.dynamic_threads": blueprint.is_parallel})
    assert isinstance(found, str)
    return Path(found)


def _read(fd: int, nbytes: int) -> bytes:
    received = b""
    while len(received) < nbytes:
        part = os.read(fd, nbytes - len(received))
        if not part:
            raise SystemExit("the learner has hung up")
        received += part
    return received


def _end_with(learner: int) -> None:
    """End this process and the compilers that it has started when the learner hangs up, or is dead."""
    # Not through sys.stdin, whose lock the interpreter needs to end.
    os.read(learner, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
