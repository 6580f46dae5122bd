"""Which update an algorithm makes: SB3's own, or a compiled one as soon as there is one and it pays."""

import math
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.learners.compilation import Compiling, may_be_at_hand
from sb3_walle.learners.unsupported import Unsupported

LEARNERS = ("auto", "compiled", "eager")

# Eager updates of so many seconds, still to come or already made, are worth some tenths of a second of tracing, to see
# whether there is a program already; and compiling, for which a core works for some ten seconds.
WORTH_TRACING = 5.0
WORTH_COMPILING = 30.0
# What the compiler takes for a program beside samplers at work, in seconds. Where there is a seed, so many seconds of
# updates are eager.
NOMINAL_COMPILE_SECONDS = 15.0
# After so many compiled minibatches, the first of the next update is done eagerly, too, to be compared. Most updates
# have more than these, and those that have few, of many samples, do not lose what they gain.
MINIBATCHES_PER_COMPARISON = 20


class Learner(ABC):
    """
    Updates the policy of an algorithm.

    :param algorithm: the algorithm
    :param choice: what the user asked for, one of :data:`LEARNERS`
    """

    #: what SB3 takes at least for a minibatch, in seconds, as long as nothing has been measured
    eager_seconds: ClassVar[float]
    #: what the compiled update does. A class in between, or a program that replaces it, may do something else
    sb3_train: ClassVar[Any]

    def __init__(self, algorithm: BaseAlgorithm, choice: str) -> None:
        # The algorithm has this object. If it were known here, too, it would outlive its last user.
        self._reference = weakref.ref(algorithm)
        self._choice = choice
        self._reason: Unsupported | None = None
        self._key: Hashable = None
        self._compilation: Compiling | None = None
        self._planned_updates = 0
        #: where there is a seed, updates that are still eager since compiling began; ``None`` before that
        self._n_eager_ahead: int | None = None
        self._eager_seconds = 0.0
        self._n_eager_updates = self._n_eager_minibatches = 0
        self._is_announced = False
        self._n_minibatches_unchecked: int | None = None
        #: whether the last update was a compiled one
        self.is_compiled = False

    @property
    def _algorithm(self) -> Any:
        algorithm = self._reference()
        assert algorithm is not None
        return algorithm

    @abstractmethod
    def _what_decides(self) -> Hashable:
        """:return: what a traced step depends on; raises ``Unsupported`` if there can be none"""

    @abstractmethod
    def _compile(self) -> Compiling:
        """:return: what leads to the programs of an update; raises ``Unsupported`` if there can be none"""

    @abstractmethod
    def _update(self, compiled: Any, number: int, is_compared: bool) -> int:
        """
        Make an update with compiled programs.

        :param compiled: what :meth:`_compile` has led to
        :param number: number of the update, from 1
        :param is_compared: whether to make the first minibatch eagerly, too
        :return: number of minibatches that it had
        """

    @abstractmethod
    def _minibatches_per_update(self) -> int:
        """:return: number of minibatches of an update"""

    def _n_programs(self) -> int:
        """:return: number of programs that an update takes"""
        return 1

    @abstractmethod
    def _n_minibatches_made(self) -> int:
        """:return: number of minibatches of all updates so far, as the algorithm counts them"""

    def require(self) -> None:
        """
        Check that the update can be compiled, as far as that can be known beforehand.

        :raises ValueError: if it cannot
        """
        self._prepare()
        if self._reason is not None:
            raise ValueError(f"learner='compiled' is impossible: {self._reason}. Use learner='auto' or 'eager'.")

    def plan(self, n_updates: int) -> None:
        """
        Prepare a compiled update where it pays.

        :param n_updates: number of updates to come
        """
        self._planned_updates = n_updates
        self._consider()

    def train(self, number: int, eagerly: Callable[[], None]) -> None:
        """
        Make an update.

        :param number: its number, from 1
        :param eagerly: makes it as SB3 does
        :raises NonFiniteError: if the algorithm checks for NaN and a loss or gradient is not finite
        """
        compiled = self._compiled(number)
        self.is_compiled = compiled is not None
        if compiled is not None:
            try:
                self._train_compiled(number, compiled)
            except Unsupported as reason:
                self._refuse(reason)
                self.is_compiled = False
        if not self.is_compiled:
            self._train_eagerly(eagerly)
        self._planned_updates -= 1
        if self._n_eager_ahead:
            self._n_eager_ahead -= 1

    def abandon(self) -> None:
        """``learn()`` has ended before it was through: stop compiling what has not been used yet."""
        if not self.is_compiled:
            self.close()

    def close(self) -> None:
        """Stop compiling."""
        if self._compilation is not None:
            self._compilation.close()
            self._compilation, self._key = None, None

    def _train_eagerly(self, eagerly: Callable[[], None]) -> None:
        started, n_before = time.perf_counter(), self._n_minibatches_made()
        eagerly()
        self._eager_seconds += time.perf_counter() - started
        self._n_eager_updates += 1
        self._n_eager_minibatches += self._n_minibatches_made() - n_before

    def _train_compiled(self, number: int, compiled: Any) -> None:
        assert self._compilation is not None
        unchecked = self._n_minibatches_unchecked
        is_compared = unchecked is None or unchecked >= self._minibatches_per_comparison()
        started = time.perf_counter()
        with _threads(self._compilation.is_parallel):
            n_minibatches = self._update(compiled, number, is_compared)
        self._n_minibatches_unchecked = n_minibatches + (0 if is_compared else unchecked or 0)
        if not self._is_announced:
            self._is_announced = True
            self._announce(number, (time.perf_counter() - started) / n_minibatches)

    def _minibatches_per_comparison(self) -> int:
        """After how many compiled minibatches the first of the next update is done eagerly, too, to be compared."""
        return MINIBATCHES_PER_COMPARISON

    def _compiled(self, number: int) -> Any:
        """What an update takes, if it is there, fits the algorithm as it is now, and may be used; ``None`` if not."""
        self._consider()
        if self._compilation is None or not self._compilation.is_begun:
            return None
        try:
            compiled = self._compilation.compiled(wait=False)
            if self._is_seeded_auto() and self._n_eager_ahead != 0:
                # Found on disk, perhaps. From the same seed the same numbers come, whatever the timing.
                return None
            if compiled is None and (self._is_seeded_auto() or self._choice == "compiled"):
                self._say_waiting(number)
                compiled = self._compilation.compiled(wait=True)
            return compiled
        except Unsupported as reason:
            self._refuse(reason)
            return None

    def _consider(self) -> None:
        """Trace and compile, each as soon as it pays."""
        if self._choice == "eager":
            return
        seconds = self._seconds_worth_saving()
        pays = self._choice == "compiled" or seconds >= WORTH_COMPILING
        if self._compilation is not None or pays or self._may_be_found(seconds):
            self._prepare()
        if self._compilation is not None and pays:
            try:
                self._compilation.begin()
            except Unsupported as reason:
                self._refuse(reason)
            if self._n_eager_ahead is None and self._is_seeded_auto():
                self._n_eager_ahead = self._n_updates_to_compile()

    def _may_be_found(self, seconds: float) -> bool:
        """Whether to look for a program on disk. What is there must not decide where there is a seed."""
        return not self._is_seeded_auto() and seconds >= WORTH_TRACING and may_be_at_hand(self._algorithm.policy.device)

    def _n_updates_to_compile(self) -> int:
        """Number of updates that SB3 makes while the compiler is at work: a function of the arguments, not of time."""
        if self._algorithm.policy.device.type != "cpu":
            # Recorded at once rather than compiled.
            return 0
        return math.ceil(self._n_programs() * NOMINAL_COMPILE_SECONDS / self._nominal_seconds())

    def _is_seeded_auto(self) -> bool:
        return self._choice == "auto" and self._algorithm.seed is not None

    def _prepare(self) -> None:
        """Trace the step, unless that was done and nothing has changed since."""
        try:
            key = self._what_decides()
        except Unsupported as reason:
            # Whatever comes next is another one, even if it is the one before.
            self._key = None
            self._refuse(reason)
            return
        if key == self._key:
            return
        self.close()
        self._key, self._reason, self._is_announced = key, None, False
        self._n_minibatches_unchecked = self._n_eager_ahead = None
        try:
            self._compilation = self._compile()
        except Unsupported as reason:
            self._refuse(reason)

    def _refuse(self, reason: Unsupported) -> None:
        if self._compilation is not None:
            self._compilation.close()
        self._compilation = None
        if self._reason is None and self._algorithm.verbose >= 1:
            print(f"Updates are not compiled: {reason}")
        self._reason = reason

    def _seconds_worth_saving(self) -> float:
        """What eager updates have taken, or are going to take."""
        if self._is_seeded_auto():
            # By their number: no update may be eager or compiled by chance.
            are_enough = self._planned_updates > self._n_updates_to_compile()
            n_updates = max(self._n_eager_updates, self._planned_updates if are_enough else 0)
            return n_updates * self._nominal_seconds()
        known = self._eager_seconds / self._n_eager_updates if self._n_eager_updates else self._nominal_seconds()
        return max(self._eager_seconds, self._planned_updates * known)

    def _nominal_seconds(self) -> float:
        """What an eager update takes, before any is measured."""
        return self.eager_seconds * self._minibatches_per_update()

    def _say_waiting(self, number: int) -> None:
        if self._algorithm.verbose < 1:
            return
        why = ", the first time only"
        if self._is_seeded_auto():
            why = f": with a seed, updates are compiled from number {number} on in every run"
        print(f"Waiting for the update to be compiled, which takes some seconds{why}")

    def _announce(self, number: int, seconds: float) -> None:
        if self._algorithm.verbose < 1:
            return
        assert self._compilation is not None
        spent = self._compilation.seconds
        origin = "found on disk" if spent is None else f"compiled within {spent:.0f} s"
        gain = ""
        if self._n_eager_minibatches:
            before = self._eager_seconds / self._n_eager_minibatches
            gain = f" instead of {1e6 * before:,.0f}, {before / seconds:.1f} times as fast"
        print(f"Updates are compiled from number {number} on ({origin}): {1e6 * seconds:,.0f} us a minibatch{gain}")


def check_learner(learner: str) -> None:
    """
    :param learner: what the user asked for
    :raises ValueError: if there is no such learner
    """
    if learner not in LEARNERS:
        raise ValueError(f"learner must be one of {LEARNERS}, got {learner!r}")


@contextmanager
def _threads(is_parallel: bool) -> Iterator[None]:
    """One thread, unless the program makes use of more."""
    n_threads = th.get_num_threads()
    if is_parallel or n_threads == 1:
        yield
        return
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(n_threads)
