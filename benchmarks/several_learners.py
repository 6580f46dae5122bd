"""
What several learners gain: updates of PPO by 1 and by K of them, and adding up gradients beside gloo's all-reduce.

.. code-block:: shell

    python -m benchmarks.several_learners --n-learners 2 --nets 64x64 256x256 --batch-sizes 64 1024
"""

import argparse
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch as th
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.machine import describe_machine
from benchmarks.speed.update_sizes import NETS, algorithm_with_samples
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle.cli.tables import format_ratio
from sb3_walle.gradient_workers.job import Job, bound, tensors_in
from sb3_walle.gradient_workers.learners import Learners
from sb3_walle.gradient_workers.shared_minibatch import SharedMinibatch
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.shared_memory import SharedMemory
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.program_compiler import ProgramCompiler
from sb3_walle.updates.shares import apply_half, gradient_half
from sb3_walle.updates.updater import Updater

# Gradients of a policy of 64x64 and of one of 256x256, in bytes.
REDUCED_NBYTES = (44_000, 600_000)
N_REPEATS = 300


# Updates


class Contender:
    """
    A model, and what updates it.

    :param net: name of a network
    :param batch_size: samples of a minibatch
    :param n_learners: number of learners
    :param n_threads: threads of torch; several learners use one each
    """

    def __init__(self, net: str, batch_size: int, n_learners: int, n_threads: int) -> None:
        self._model, self._n_threads = algorithm_with_samples(NETS[net], batch_size), n_threads
        self._n_minibatches = -(-self._model.n_steps // batch_size)
        self._sharing = Learners(n_learners) if n_learners > 1 else None
        with threads(n_threads):
            self._updater = Updater(PPOUpdate(self._model), "compiled", self._sharing)
            self._updater.require()
        self.update(n_epochs=1)
        if self._sharing is not None:
            self._sharing.workers.wait_until_ready()

    def update(self, n_epochs: int) -> float:
        """Make an update. Returns microseconds a minibatch."""
        self._model.n_epochs = n_epochs
        with threads(self._n_threads):
            started = time.perf_counter()
            self._updater.train(1, _must_not_be_needed)
            return 1e6 * (time.perf_counter() - started) / (n_epochs * self._n_minibatches)

    def cpu_microseconds(self) -> float:
        """CPU time of a whole minibatch's program."""
        compiler = self._compiler()
        program, inputs = compiler.programs(wait=True), _copied(compiler.steps["update"].inputs)
        assert program is not None
        return _median_microseconds(lambda: program["update"](inputs), time.thread_time)

    def cpu_microseconds_of_parts(self) -> list[float]:
        """CPU time of one learner's share of the gradient, of the step, and of putting the minibatch in its place."""
        compiler = self._compiler()
        halves, traced = compiler.programs(wait=True), compiler.steps["update"]
        assert halves is not None and compiler.division is not None
        parts = traced.eager.parts(_copied(traced.inputs))
        vectors = traced.eager.vectors(parts.state)
        minibatch = SharedMinibatch(traced.eager, traced.inputs, compiler.division)
        share = bound(halves[gradient_half("policy")], minibatch.share("policy", 0), minibatch.tensors)
        numbers = [*parts.state, *minibatch.parameters, minibatch.found_in("policy"), parts.coefficients, *parts.adam]
        calls = (share, lambda: halves[apply_half("policy")](numbers), lambda: minibatch.fill(parts, vectors))
        return [_median_microseconds(call, time.thread_time) for call in calls]

    def _compiler(self) -> ProgramCompiler:
        assert self._updater._compiler is not None
        return self._updater._compiler

    def close(self) -> None:
        self._updater.close()


class threads:
    """torch has so many threads for the length of a block."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __enter__(self) -> None:
        self._before = th.get_num_threads()
        th.set_num_threads(self._n)

    def __exit__(self, *_: object) -> None:
        th.set_num_threads(self._before)


def update_row(net: str, batch_size: int, n_learners: Sequence[int], n_rounds: int) -> list[str]:
    """Medians of alternating updates: one learner with one thread, with as many as there are learners, and learners."""
    kinds = [(1, 1), *((1, k) for k in n_learners), *((k, 1) for k in n_learners)]
    with ExitStack() as stack:
        contenders = [Contender(net, batch_size, *kind) for kind in kinds]
        for contender in contenders:
            stack.callback(contender.close)
        times = np.array([[each.update(NETS[net].n_epochs) for each in contenders] for _ in range(n_rounds)])
    one, *others = (float(value) for value in np.median(times[1:], axis=0))
    cells = [cell for value in others for cell in (format_number(value), format_ratio(one, value))]
    return [f"{net}, minibatches of {batch_size}", format_number(one), *cells]


def parts_row(net: str, batch_size: int, n_learners: int) -> list[str]:
    """Where the time of a minibatch goes: CPU time, which says little of waiting and much of what is not divided."""
    with ExitStack() as stack:
        one, several = (Contender(net, batch_size, k, 1) for k in (1, n_learners))
        for contender in (one, several):
            stack.callback(contender.close)
        times = [one.cpu_microseconds(), *several.cpu_microseconds_of_parts()]
    return [f"{net}, minibatches of {batch_size}, K={n_learners}", *map(format_number, times)]


def _must_not_be_needed() -> None:
    raise RuntimeError("this update cannot be compiled here")


# Adding up gradients


@dataclass(frozen=True)
class NothingToDo(Job):
    """A worker that only keeps in step."""

    def bound_calls(self) -> list[Callable[[], object]]:
        return [lambda: None]


def reduce_in_shared_memory(nbytes: int) -> float:
    """Microseconds until a worker was asked and has answered, and two rows of so many bytes are added."""
    layout = Layout((Field("found", (2, nbytes // 4), "float32"),))
    memory, workers = SharedMemory(layout.nbytes), GradientWorkers(1)
    rows = tensors_in(layout, memory)["found"]
    total = th.zeros(nbytes // 4)

    def make_job(_: int, line: socket.socket) -> Job:
        return NothingToDo(memory, layout, (), line)

    try:
        workers.start(make_job)
        workers.wait_until_ready()
        workers.start(make_job)

        def reduce() -> None:
            for rank in workers.ask(0):
                workers.has_done(rank)
            th.add(rows[0], rows[1], out=total)

        return _median_microseconds(reduce)
    finally:
        workers.close()


def reduce_by_gloo(nbytes: int) -> float:
    """Microseconds of an all-reduce of so many bytes between two processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_all_reduce, (folder, nbytes), nprocs=2)
        return float(np.loadtxt(os.path.join(folder, "microseconds")))


def _all_reduce(rank: int, folder: str, nbytes: int) -> None:
    th.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    vector = th.zeros(nbytes // 4)
    found = _median_microseconds(lambda: dist.all_reduce(vector))
    if rank == 0:
        np.savetxt(os.path.join(folder, "microseconds"), [found])
    dist.destroy_process_group()


def _copied(tensors: Sequence[th.Tensor]) -> list[th.Tensor]:
    return [tensor.clone() for tensor in tensors]


def _median_microseconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    times = []
    for _ in range(N_REPEATS):
        started = clock()
        function()
        times.append(clock() - started)
    return 1e6 * median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--n-learners", type=int, nargs="+", default=[2], metavar="K")
    parser.add_argument("--nets", nargs="+", default=[*NETS], choices=[*NETS])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 1024], metavar="N")
    parser.add_argument("--rounds", type=int, default=6, help="updates of each, of which the first does not count")
    arguments = parser.parse_args()
    print(f"Several learners {describe_machine().in_words()}\n")
    titles = ["us/minibatch", "1 learner, 1 thread"]
    for what in ("1 learner, {} threads", "{} learners"):
        titles += [title for k in arguments.n_learners for title in (what.format(k), "faster")]
    sizes = [(net, size) for net in arguments.nets for size in arguments.batch_sizes]
    rows = [update_row(net, size, arguments.n_learners, arguments.rounds) for net, size in sizes]
    print(format_markdown_table(titles, rows), flush=True)
    rows = [parts_row(net, size, k) for net, size in sizes for k in arguments.n_learners]
    titles = ["CPU us/minibatch", "1 learner", "share of the gradient", "step", "copy"]
    print(f"\n{format_markdown_table(titles, rows)}", flush=True)
    reductions = [
        [f"{nbytes:,}", *(format_number(reduce(nbytes), 1) for reduce in (reduce_in_shared_memory, reduce_by_gloo))]
        for nbytes in REDUCED_NBYTES
    ]
    print(f"\n{format_markdown_table(['bytes of two gradients, us', 'shared memory', 'gloo'], reductions)}")


if __name__ == "__main__":
    main()
