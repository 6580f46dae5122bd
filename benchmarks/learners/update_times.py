"""Updates of PPO by one learner, by one with several threads, and by several learners."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from statistics import median

import numpy as np
import torch as th

from benchmarks.run_log import RowFormat
from benchmarks.speed.update_sizes import NETS, algorithm_with_samples
from sb3_walle.gradient_workers.learners import Learners
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater


@dataclass(frozen=True)
class UpdateTime:
    """
    :param net: name of a network
    :param batch_size: samples of a minibatch
    :param n_learners: number of learners
    :param n_threads: threads of torch; several learners use one each
    :param microseconds: for a minibatch, the median of alternating updates
    """

    net: str
    batch_size: int
    n_learners: int
    n_threads: int
    microseconds: float


UPDATE_TIMES: RowFormat[UpdateTime] = RowFormat(
    "times of updates",
    {"net": str, "batch_size": int, "n_learners": int, "n_threads": int, "microseconds": float},
    UpdateTime,
    astuple,
    lambda row: (row.net, row.batch_size),
)


class Contender:
    """A model, and what updates it."""

    def __init__(self, net: str, batch_size: int, n_learners: int, n_threads: int) -> None:
        self._model, self._n_threads = algorithm_with_samples(NETS[net], batch_size), n_threads
        self._n_minibatches = -(-self._model.n_steps // batch_size)
        self._sharing = Learners(n_learners) if n_learners > 1 else None
        with _threads(n_threads):
            self._updater = Updater(PPOUpdate(self._model), "compiled", self._sharing)
            self._updater.require()
        self.update(n_epochs=1)
        if self._sharing is not None:
            self._sharing.workers.wait_until_ready()

    def update(self, n_epochs: int) -> float:
        """Make an update. Returns microseconds a minibatch."""
        self._model.n_epochs = n_epochs
        with _threads(self._n_threads):
            started = time.perf_counter()
            self._updater.train(1, _must_not_be_needed)
            return 1e6 * (time.perf_counter() - started) / (n_epochs * self._n_minibatches)

    def close(self) -> None:
        self._updater.close()


def contenders(n_learners: Sequence[int]) -> list[tuple[int, int]]:
    """Learners and threads of each: one of both, as many threads as there are learners elsewhere, and these."""
    return [(1, 1), *((1, k) for k in n_learners), *((k, 1) for k in n_learners)]


def measure_updates(net: str, batch_size: int, n_learners: Sequence[int], n_rounds: int) -> Iterator[UpdateTime]:
    """Medians of alternating updates, of which the first does not count."""
    kinds = contenders(n_learners)
    with ExitStack() as stack:
        made = [Contender(net, batch_size, *kind) for kind in kinds]
        for contender in made:
            stack.callback(contender.close)
        times = [[each.update(NETS[net].n_epochs) for each in made] for _ in range(n_rounds + 1)]
    for kind, column in zip(kinds, np.array(times[1:]).T, strict=True):
        yield UpdateTime(net, batch_size, *kind, median(column.tolist()))


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """torch has so many threads for the length of a block."""
    before = th.get_num_threads()
    th.set_num_threads(n)
    try:
        yield
    finally:
        th.set_num_threads(before)


def _must_not_be_needed() -> None:
    raise RuntimeError("this update cannot be compiled here")
