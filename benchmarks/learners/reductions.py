"""Adding up gradients of two learners: in shared memory, as gradient workers do it, and by gloo's all-reduce."""

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch as th
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle.cli.tables import format_ratio
from sb3_walle.gradient_workers.calls import Place, SumCall
from sb3_walle.gradient_workers.job import Job, tensors_in
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.slices import Slices

# Gradients of a policy of 64x64 and of one of 256x256, in bytes.
REDUCED_NBYTES = (44_000, 600_000)
N_REPEATS = 300


def reductions_table() -> str:
    rows = []
    for nbytes in REDUCED_NBYTES:
        ours, gloos = reduce_in_shared_memory(nbytes), reduce_by_gloo(nbytes)
        rows.append([f"{nbytes:,}", format_number(ours, 1), format_number(gloos, 1), format_ratio(gloos, ours)])
    return format_markdown_table(["bytes of two gradients, us", "shared memory", "gloo", "faster"], rows)


def reduce_in_shared_memory(nbytes: int) -> float:
    """Microseconds until both learners have added up their slices of so many bytes."""
    slices = Slices(nbytes // 4, n_learners=2)
    shapes = {"gradients": (2, slices.n_with_room), "sum": (slices.n_with_room,), "norms": (2,)}
    layout = Layout(tuple(Field(name, shape, "float32") for name, shape in shapes.items()))
    memory, workers = SharedMemory(layout.nbytes), GradientWorkers(1)

    def call(rank: int) -> SumCall:
        part = slices.part(rank)
        return SumCall(((Place("gradients", (slice(None), part)), Place("sum", part), Place("norms", rank)),))

    def make_job(rank: int, line: socket.socket) -> Job:
        return Job(memory, layout, {}, (call(rank),), line)

    add = call(0).bound({}, tensors_in(layout, memory))

    def reduce() -> None:
        at_work = workers.ask(0)
        add()
        for rank in at_work:
            workers.has_done(rank)

    try:
        workers.start(make_job)
        workers.wait_until_ready()
        return _median_microseconds(reduce)
    finally:
        workers.close()


def reduce_by_gloo(nbytes: int) -> float:
    """Microseconds of an all-reduce of so many bytes between two processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_all_reduce, (folder, nbytes), nprocs=2)
        return float(np.loadtxt(Path(folder, "microseconds")))


def _all_reduce(rank: int, folder: str, nbytes: int) -> None:
    th.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    vector = th.zeros(nbytes // 4)
    found = _median_microseconds(lambda: dist.all_reduce(vector))
    if rank == 0:
        np.savetxt(Path(folder, "microseconds"), [found])
    dist.destroy_process_group()


def _median_microseconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(N_REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1e6 * median(times)
