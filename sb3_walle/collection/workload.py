"""What holds up training: the learner, the samplers, or one of them."""

from time import perf_counter

import numpy as np

# One sampler is the slowest if it works so many times as long as the one that comes next.
SLOWEST = 1.5


class Workload:
    """
    For how long learner and samplers work, from one line of the log to the next.

    :param n_samplers: number of samplers
    :param needs_all_samplers: whether a rollout takes a fixed share of every sampler; otherwise, what comes first
    """

    def __init__(self, n_samplers: int, needs_all_samplers: bool) -> None:
        self._needs_all_samplers = needs_all_samplers
        self._n_samplers = n_samplers
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next rollout."""
        self._began_at: float | None = None
        self._wait_seconds = 0.0
        self._busy_seconds = np.zeros(self._n_samplers)

    def begin_rollout(self) -> None:
        """The learner begins a rollout."""
        if self._began_at is None:
            self._began_at = perf_counter()

    def add_wait(self, seconds: float) -> None:
        """The learner has waited for a chunk."""
        self._wait_seconds += seconds

    def add_work(self, sampler: int, seconds: float) -> None:
        """A sampler has collected what the learner uses."""
        self._busy_seconds[sampler] += seconds

    def take_bottleneck(self) -> str:
        """:return: what has held up training since the last call, in a word"""
        now = perf_counter()
        seconds = 0.0 if self._began_at is None else now - self._began_at
        word = bottleneck(seconds, self._wait_seconds, self._busy_seconds, self._needs_all_samplers)
        self.forget()
        self._began_at = now
        return word


def bottleneck(seconds: float, wait_seconds: float, busy_seconds: np.ndarray, needs_all_samplers: bool) -> str:
    """
    Find out what works longest: that decides how long an iteration takes.

    :param seconds: time that has passed
    :param wait_seconds: for how long of it the learner waited for chunks
    :param busy_seconds: for how long each sampler worked, ``[n_samplers]``
    :param needs_all_samplers: whether a rollout takes a fixed share of every sampler; otherwise, what comes first
    :return: ``"learner"``, ``"samplers"``, or ``"slowest sampler <number>"`` if all others wait for that one
    """
    needed = float(busy_seconds.max() if needs_all_samplers else busy_seconds.mean())
    # Where samplers live in the learner's process, its wait is the work of all of them, one after the other.
    if seconds - wait_seconds >= max(wait_seconds, needed):
        return "learner"
    if needs_all_samplers and len(busy_seconds) > 1:
        second, first = np.sort(busy_seconds)[-2:]
        if first >= SLOWEST * second:
            return f"slowest sampler {busy_seconds.argmax()}"
    return "samplers"
