"""What happens when samplers die: how many deaths are too many, how long to wait, and what the user is told."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from sb3_walle.backends.death import Death
from sb3_walle.samplers.errors import SamplerError, SamplerWarning
from sb3_walle.user_warning import warn_user

ON_FAILURE = ("restart", "raise")
# A sampler that dies once a day is bad luck. What dies more often than ``max_restarts`` within this time is broken.
RESTART_WINDOW = 600.0
WITHIN = f"within {RESTART_WINDOW / 60:.0f} minutes"
DEFAULT_MAX_RESTARTS = 10
# The first restart follows at once; the cause of a second death may need time to go away.
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0


@dataclass(frozen=True)
class Supervision:
    """
    How samplers are run, and what happens when they die or hang.

    :param on_failure: ``"restart"``: another sampler takes the place of one that died, and a warning says why;
        ``"raise"``: the first death is an error
    :param max_restarts: restarts within ten minutes, of all samplers together, after which the next death is an error
        all the same; by default 10, or one for each sampler if there are more
    :param step_timeout: longest time in seconds that a step or a reset of one environment may take before its sampler
        is killed; ``None`` for any time
    :param close_timeout: longest time in seconds that all samplers together may take to finish a step and close their
        environments, before those that have not are killed; ``None`` for any time
    :param samplers_give_way: whether samplers give way to the learner where both want a CPU
    :raises ValueError: if there is no such choice, or a number is out of range
    :raises TypeError: if something is no number
    """

    on_failure: str = "restart"
    max_restarts: int | None = None
    step_timeout: float | None = None
    close_timeout: float | None = None
    samplers_give_way: bool = True

    def __post_init__(self) -> None:
        if self.on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure must be one of {ON_FAILURE}, got {self.on_failure!r}")
        _check_number("max_restarts", self.max_restarts, Integral, "an integer of at least 0", lambda value: value >= 0)
        _check_number("step_timeout", self.step_timeout, Real, "a number of seconds above 0", lambda value: value > 0)
        _check_number(
            "close_timeout", self.close_timeout, Real, "a number of seconds of at least 0", lambda value: value >= 0
        )


class Restarts:
    """Counts restarts, says how long to wait for the next one, and when there were too many."""

    def __init__(self, supervision: Supervision, n_samplers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_allowed = supervision.on_failure == "restart"
        limit = supervision.max_restarts
        self._limit = max(DEFAULT_MAX_RESTARTS, n_samplers) if limit is None else limit
        self._clock = clock
        self._recent: deque[tuple[float, Death]] = deque()
        self._in_a_row = [0] * n_samplers
        self._last: Death | None = None
        # Deaths since training began, until a sampler has finished something; ``None`` from then on.
        self._fruitless: list[Death] | None = []
        #: restarts so far
        self.n_restarts = 0

    def after(self, death: Death) -> float:
        """
        Decide what follows from a death, and warn of it if training continues.

        :param death: the sampler that died
        :return: how many seconds to wait before another one is started in its place
        :raises SamplerError: if it is not to be replaced
        """
        now = self._clock()
        while self._recent and self._recent[0][0] <= now - RESTART_WINDOW:
            self._recent.popleft()
        if not self._is_allowed:
            raise death.to_error()
        if death.cause is not None and any(death.cause == other.cause for _, other in self._recent):
            self.n_restarts += 1
            return 0.0
        if len(self._recent) >= self._limit:
            raise self._too_many(death)
        if self._fruitless is not None:
            if any(death.repeats(other) for other in self._fruitless):
                raise self._repeated(death)
            self._fruitless.append(death)
        self._recent.append((now, death))
        self.n_restarts += 1
        warn(f"{death.after(self._last)}\nRestart {len(self._recent)} of at most {self._limit} {WITHIN}.")
        self._last = death
        in_a_row = self._in_a_row[death.sampler]
        self._in_a_row[death.sampler] += 1
        # Where nothing limits restarts, the power would become larger than any float.
        return 0.0 if in_a_row == 0 else min(FIRST_DELAY * 2 ** min(in_a_row - 1, 100), LONGEST_DELAY)

    def has_worked(self, sampler: int) -> None:
        """Note that a sampler has finished a chunk, or a step in lockstep: its last restart has helped."""
        self._in_a_row[sampler] = 0
        self._fruitless = None

    def begin_anew(self) -> None:
        """
        Note that samplers begin something new. Until one of them has finished a part of it, what they die of twice at
        the same place is a bug, which further restarts would only repeat.
        """
        self._fruitless = []

    def _too_many(self, last: Death) -> SamplerError:
        if not self._recent:
            return last.to_error()
        first = self._recent[0][1]
        reason = f"Samplers died more often than max_restarts={self._limit} times {WITHIN}. The first death: "
        return last.explained_by(
            f"{reason}{first.with_traceback()}\nThe last death: {last.after(first)}",
            f"{reason}{first.full_text()}\nThe last death: {last.full_text()}",
        )

    @staticmethod
    def _repeated(last: Death) -> SamplerError:
        reason = (
            "A sampler died before at the same place, and none has finished anything since training began: another "
            "restart would not help."
        )
        return last.explained_by(f"{last.with_traceback()}\n{reason}", f"{last.full_text()}\n{reason}")


def hung(step_timeout: float) -> str:
    """What became of a sampler whose step took longer than that many seconds, as in "Sampler 3 hung"."""
    return f"hung: a step or a reset of its environment took longer than step_timeout={step_timeout:g} s"


def warn(message: str) -> None:
    """Warn of something that happened to samplers, each time that it happens, at the line of the user's program."""
    warn_user(message, SamplerWarning, every_time=True)


def _check_number(name: str, value: object, kind: type, allowed: str, is_in_range: Callable[[Any], bool]) -> None:
    if value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, or None, got {value!r}")
    if not is_in_range(value):
        raise ValueError(f"{name} must be {allowed}, or None, got {value!r}")
