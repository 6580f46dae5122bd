"""The runs of a comparison of returns: the returns of each bin of steps."""

import time
from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.contenders import Trainee
from benchmarks.returns.returns_log import BinReturn
from benchmarks.returns.returns_settings import ReturnsSettings


class ReturnRecorder(BaseCallback):
    """
    Sums up the returns of each bin of steps as soon as the bin is complete, and ends ``learn()`` with the last of them.

    The returns are those that Monitor reports, of rewards as the environments give them, normalised or not. An episode
    counts in the bin in which it ends.

    :param bin_ends: the last step of each bin, all environments together, in ascending order
    :param on_bin: called with a bin's last step and the returns of its episodes
    """

    def __init__(self, bin_ends: tuple[int, ...], on_bin: Callable[[int, list[float]], None]) -> None:
        super().__init__()
        self._ends_left = list(bin_ends)
        self._on_bin = on_bin
        self._returns: list[float] = []

    def _on_step(self) -> bool:
        # The environments took their steps at once, and all of them count as the last one: bins that end before it are
        # complete without these episodes.
        self._complete(self.num_timesteps - 1)
        self._returns += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        self._complete(self.num_timesteps)
        return bool(self._ends_left)

    def _complete(self, timesteps: int) -> None:
        while self._ends_left and self._ends_left[0] <= timesteps:
            self._on_bin(self._ends_left.pop(0), self._returns)
            self._returns = []


def train_once(
    trainee: Trainee, settings: ReturnsSettings, seed: int, on_row: Callable[[BinReturn], object]
) -> list[BinReturn]:
    """
    Train from scratch.

    :param settings: on what
    :param on_row: called with the returns of each bin, as soon as it is complete
    :return: the returns of all bins
    """
    rows: list[BinReturn] = []
    start = time.perf_counter()

    def on_bin(timesteps: int, returns: list[float]) -> None:
        mean_return = float(np.mean(returns)) if returns else float("nan")
        seconds = round(time.perf_counter() - start, 3)
        rows.append(BinReturn(seed, trainee.name, timesteps, mean_return, len(returns), seconds))
        on_row(rows[-1])

    with trainee.running(settings.env_id, seed=seed) as model:
        if settings.n_threads is not None:
            th.set_num_threads(settings.n_threads)
        own = [] if trainee.make_callback is None else [trainee.make_callback()]
        model.learn(settings.total_timesteps, callback=[*own, ReturnRecorder(settings.bin_ends, on_bin)])
    return rows
