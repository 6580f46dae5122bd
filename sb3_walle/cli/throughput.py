"""Steps per second of SB3's algorithms and ours: while they collect, and while they train."""

import gc
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle.algorithm.async_mixin import AsyncMixin
from sb3_walle.cli.algorithms import check_masks
from sb3_walle.cli.environments import usage_errors

AlgorithmT = TypeVar("AlgorithmT", bound=BaseAlgorithm)


class Stopwatch(BaseCallback):
    """
    Measures from the end of one rollout to the end of a later one, and ends ``learn()`` there.

    As many updates as collections lie between the two, whichever way they overlap.

    :param warm_up: environment steps before the measurement, at least
    :param n_steps: environment steps that it lasts, at least
    :param on_start: called when the measurement begins
    :param seconds: that it lasts, at least
    """

    class Done(Exception):
        """The measurement is complete."""

    def __init__(
        self, warm_up: int, n_steps: int, on_start: Callable[[], object] | None = None, seconds: float = 0.0
    ) -> None:
        super().__init__()
        self.warm_up, self.n_steps, self.on_start, self.seconds = warm_up, n_steps, on_start, seconds
        #: environment steps per second, all environments together; not a number before the measurement is complete
        self.rate = math.nan
        self._start: tuple[int, float] | None = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        now = time.perf_counter()
        if self._start is None:
            if self.num_timesteps >= self.warm_up:
                self._start = self.num_timesteps, now
                if self.on_start is not None:
                    self.on_start()
        elif self.num_timesteps >= self._start[0] + self.n_steps and now - self._start[1] >= self.seconds:
            self.rate = (self.num_timesteps - self._start[0]) / (now - self._start[1])
            raise self.Done


@contextmanager
def leaving_nothing(create: Callable[[], AlgorithmT]) -> Iterator[AlgorithmT]:
    """
    Close an algorithm's environments at the end of the block, and restore the number of PyTorch's threads.

    :raises UsageError: if the algorithm refuses its arguments or environments
    """
    n_threads = th.get_num_threads()
    with warnings.catch_warnings(), usage_errors():
        # The last minibatch of an epoch may be smaller than the others, for all contenders alike.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        model = create()
    check_masks(model)
    env = model.get_env()
    assert env is not None
    try:
        yield model
    finally:
        env.close()
        del model, env
        gc.collect()
        th.set_num_threads(n_threads)


def stop_updates(model: BaseAlgorithm) -> None:
    """Let an algorithm collect experience in ``learn()`` without any update."""
    # SB3 has no public way to do that. An instance's attribute comes before its class's method.
    setattr(model, "train", lambda *args, **kwargs: None)  # noqa: B010


def measure(model: BaseAlgorithm, stopwatch: Stopwatch) -> float:
    """
    Call ``learn()`` until the stopwatch ends it.

    :return: environment steps per second, all environments together
    """
    # More steps than the stopwatch needs: an algorithm must not take the measured rollouts for its last.
    total_timesteps = 4 * (stopwatch.warm_up + stopwatch.n_steps) if stopwatch.seconds == 0 else sys.maxsize
    if isinstance(model, AsyncMixin):
        # No callback looks at infos but those of the user's own, which the stopwatch seems to be.
        model.info_keys = ()
    with suppress(Stopwatch.Done):
        model.learn(total_timesteps, callback=stopwatch)
    if math.isnan(stopwatch.rate):
        raise RuntimeError("learn() ended before the measurement was complete")
    return stopwatch.rate
