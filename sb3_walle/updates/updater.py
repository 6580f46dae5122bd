"""Which update an algorithm makes: SB3's own, or a compiled one as soon as there is one and it pays."""

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.division import Division, divide
from sb3_walle.updates.global_state import threads_at_most
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.program_compiler import Program, ProgramCompiler, may_be_at_hand
from sb3_walle.updates.sharing import Sharing
from sb3_walle.updates.traced_step import TracedStep, trace_update
from sb3_walle.updates.trial import Trial
from sb3_walle.updates.unsupported import Unsupported
from sb3_walle.user_warning import warn_user

LEARNERS = ("auto", "compiled", "eager")

# Eager updates of so many seconds, still to come or already made, are worth some tenths of a second of tracing, to see
# whether there is a program already; and compiling, for which a core works for some ten seconds.
WORTH_TRACING = 5.0
WORTH_COMPILING = 30.0
# What the compiler takes for a program beside samplers at work, in seconds. Where there is a seed, so many seconds of
# updates are eager.
NOMINAL_COMPILE_SECONDS = 15.0
# Of each stage, where several learners share the minibatches.
N_HALVES = 2
# The time of an update tells what a compiled minibatch takes, although one of so many is compared with an eager one.
MINIBATCHES_PER_TIMING = 20


class Updater:
    """
    Makes the updates of an algorithm.

    :param update: what it declares of its update
    :param choice: the user's ``learner=``, one of :data:`LEARNERS`
    :param sharing: the processes that compute gradients, if there are several
    :param must_gain: whether there are several only where they turn out to be faster
    """

    def __init__(
        self, update: AlgorithmUpdate, choice: str, sharing: Sharing | None = None, must_gain: bool = False
    ) -> None:
        self.update = update
        self._choice = choice
        self.sharing = sharing
        self._must_gain = must_gain
        self._trial: Trial | None = None
        #: why one learner computes all gradients, although there are several
        self._not_shared: Unsupported | None = None
        self._reason: Unsupported | None = None
        self._key: Hashable = None
        self._groups: Sequence[ParameterGroup] = ()
        self._compiler: ProgramCompiler | None = None
        self._planned_updates = 0
        #: where there is a seed, updates that are still eager since compiling began; ``None`` before that
        self._n_eager_ahead: int | None = None
        self._eager_seconds = 0.0
        self._n_eager_updates = self._n_eager_minibatches = 0
        #: number of the first compiled update, until the user is told how fast it is
        self._unannounced: int | None = None
        self._is_announced = False
        #: whether the user knows why updates are not compiled
        self._is_told = False
        self._n_minibatches_unchecked: int | None = None
        #: comparisons that have failed since the last one that has not
        self._n_doubts = 0
        #: whether the last update was a compiled one
        self.is_compiled = False

    @property
    def is_compiling(self) -> bool:
        """Whether a compiler may be at work while updates are eager. Where there is a seed, no timing decides that."""
        return self._compiler is not None and self._compiler.is_begun and not self.is_compiled

    def require(self) -> None:
        """:raises ValueError: if it is known already that the update cannot be compiled"""
        self._prepare()
        if self._reason is not None:
            raise ValueError(f"learner='compiled' is impossible: {self._reason}. Use learner='auto' or 'eager'.")

    def plan(self, n_updates: int) -> None:
        """Prepare a compiled update if that saves time over ``n_updates`` updates to come."""
        self._planned_updates = n_updates
        self._consider()
        # Callbacks may change the policy when training starts.
        self.update.look_again()

    def train(self, number: int, eagerly: Callable[[], None]) -> None:
        """
        Make an update.

        :param number: its number, from 1
        :param eagerly: makes it as SB3 does
        :raises NonFiniteError: if the algorithm checks for NaN and a loss or gradient is not finite
        """
        programs = self._programs(number)
        self.is_compiled = programs is not None
        if programs is not None and self._compiler is not None:
            started, is_compared = time.perf_counter(), self._is_to_be_compared()
            may_differ = self._n_doubts < self.update.n_doubts
            try:
                with nullcontext() if self._compiler.is_parallel else threads_at_most(1):
                    n_minibatches, is_same = make_update(
                        self.update, self._groups, self._compiler.steps, programs, number, is_compared, may_differ
                    )
                seconds = time.perf_counter() - started
                self._note_compiled(number, n_minibatches, is_compared, is_same, seconds)
                if self._trial is not None and (not is_compared or n_minibatches >= MINIBATCHES_PER_TIMING):
                    self._note_in_trial(self._trial, seconds / n_minibatches, n_minibatches)
            except Unsupported as reason:
                self.is_compiled = False
                if self._compiler.division is None:
                    self._refuse(reason)
                else:
                    # Its samples may depend on each other. Then they can still be learned from in one piece.
                    self._leave_to_one(reason)
                    self._close_compiler()
        if not self.is_compiled:
            if self._reason is not None and not self._is_told:
                self._say_refused()
            self._train_eagerly(eagerly)
        self._planned_updates -= 1
        if self._n_eager_ahead:
            self._n_eager_ahead -= 1

    def abandon(self) -> None:
        """``learn()`` has ended early: stop compiling what has not been used yet."""
        if not self.is_compiled:
            self.close()

    def close(self) -> None:
        """Stop compiling, and end the other learners."""
        self._close_compiler()
        if self.sharing is not None:
            self.sharing.close()

    def _close_compiler(self) -> None:
        self._close_trial()
        if self._compiler is not None:
            self._compiler.close()
            self._compiler, self._key = None, None

    def _close_trial(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    def _train_eagerly(self, eagerly: Callable[[], None]) -> None:
        started, n_before = time.perf_counter(), self.update.n_minibatches_made()
        eagerly()
        self._eager_seconds += time.perf_counter() - started
        self._n_eager_updates += 1
        self._n_eager_minibatches += self.update.n_minibatches_made() - n_before

    def _is_to_be_compared(self) -> bool:
        unchecked = self._n_minibatches_unchecked
        return unchecked is None or unchecked >= self.update.minibatches_per_comparison or self._n_doubts > 0

    def _note_compiled(self, number: int, n_minibatches: int, is_compared: bool, is_same: bool, seconds: float) -> None:
        self._n_doubts = 0 if is_same else self._n_doubts + 1
        self._n_minibatches_unchecked = n_minibatches + (0 if is_compared else self._n_minibatches_unchecked or 0)
        if self._unannounced is None:
            self._unannounced = number
        if not self._is_announced and (not is_compared or n_minibatches >= MINIBATCHES_PER_TIMING):
            self._is_announced = True
            self._announce(self._unannounced, seconds / n_minibatches)

    def _programs(self, number: int) -> Mapping[str, Program] | None:
        """The programs of an update, if they are there, fit the algorithm as it is now, and may be used."""
        self._consider()
        if self._compiler is None or not self._compiler.is_begun:
            return None
        try:
            self._choose_learners()
            programs = self._compiler.programs(wait=False)
            if self._is_seeded_auto() and self._n_eager_ahead != 0:
                # Found on disk, perhaps. The same seed gives the same numbers at any timing.
                return None
            if programs is None and (self._is_seeded_auto() or self._choice == "compiled"):
                self._say_waiting(number)
                programs = self._compiler.programs(wait=True)
            division = self._compiler.division
            if programs is None or division is None or self.sharing is None:
                return programs
            return self.sharing.begin(division, self._groups, self._compiler.steps, programs)
        except Unsupported as reason:
            self._refuse(reason)
            return None

    def _choose_learners(self) -> None:
        """Take the programs of one learner or of several, as long as it is open which are faster."""
        if self._trial is None:
            return
        before = self._compiler
        self._compiler = self._trial.compiler()
        if self._compiler is not before:
            self._n_minibatches_unchecked = None

    def _note_in_trial(self, trial: Trial, seconds: float, n_minibatches: int) -> None:
        assert self.sharing is not None and self._compiler is not None
        is_shared = self._compiler.division is not None
        if is_shared and not self.sharing.are_ready:
            return
        gain = trial.note(self._compiler, seconds, n_minibatches)
        if gain is None:
            return
        if not trial.is_won:
            self.sharing.close()
        if self.update.algorithm.verbose >= 1:
            n, found = self.sharing.n_learners, f"{gain:.2f} times as fast as one"
            print(f"{n} learners are {found}: n_learners is {n if trial.is_won else 1} from now on")

    def _consider(self) -> None:
        """Trace and compile, each as soon as it pays."""
        if self._choice == "eager":
            return
        seconds = self._seconds_worth_saving()
        pays = self._choice == "compiled" or seconds >= WORTH_COMPILING
        if self._compiler is not None or pays or self._may_be_found(seconds):
            self._prepare()
        if self._compiler is not None and pays:
            try:
                self._compiler.begin()
            except Unsupported as reason:
                self._refuse(reason)
            if self._n_eager_ahead is None and self._is_seeded_auto():
                self._n_eager_ahead = self._n_updates_to_compile()

    def _may_be_found(self, seconds: float) -> bool:
        """Whether to look for a program on disk. What is there must not decide where there is a seed."""
        device = self.update.algorithm.policy.device
        return not self._is_seeded_auto() and seconds >= WORTH_TRACING and may_be_at_hand(device)

    def _n_updates_to_compile(self) -> int:
        """Number of updates that SB3 makes while the compiler is at work: a function of the arguments, not of time."""
        if self.update.algorithm.policy.device.type != "cpu":
            # Recorded at once rather than compiled.
            return 0
        n_programs = len(self.update.programs()) * (1 if self.sharing is None else N_HALVES)
        return math.ceil(n_programs * NOMINAL_COMPILE_SECONDS / self._nominal_seconds())

    def _is_seeded_auto(self) -> bool:
        return self._choice == "auto" and self.update.algorithm.seed is not None

    def _prepare(self) -> None:
        """Trace the step, unless that was done and nothing has changed since."""
        try:
            key = self.update.key()
        except Unsupported as reason:
            # What comes next is another one, even if it is the one before.
            self._key = None
            self._refuse(reason)
            return
        if key == self._key:
            return
        self._close_compiler()
        self._key, self._reason, self._is_announced, self._unannounced = key, None, False, None
        self._n_minibatches_unchecked, self._n_eager_ahead, self._n_doubts = None, None, 0
        try:
            self._groups = self.update.make_groups()
            steps = trace_update(self.update, self._groups)
            if self._must_gain and self.sharing is not None and self._not_shared is None:
                self._compiler = one = ProgramCompiler(steps)
                self._trial = Trial(one, partial(self._compiler_of_several, steps, self.sharing))
            else:
                self._compiler = ProgramCompiler(steps, self._division(steps))
        except Unsupported as reason:
            self._refuse(reason)

    def _division(self, steps: Mapping[str, TracedStep]) -> Division | None:
        """How minibatches are divided among learners; ``None`` if one makes all."""
        if self.sharing is None or self._not_shared is not None:
            return None
        try:
            division = divide(self.update, steps, self.sharing.n_learners)
        except Unsupported as reason:
            self._leave_to_one(reason)
            return None
        self.sharing.prepare()
        return division

    def _compiler_of_several(self, steps: Mapping[str, TracedStep], sharing: Sharing) -> ProgramCompiler:
        """:raises Unsupported: if they cannot be divided"""
        compiler = ProgramCompiler(steps, divide(self.update, steps, sharing.n_learners))
        sharing.prepare()
        return compiler

    def _leave_to_one(self, reason: Unsupported) -> None:
        self._not_shared = reason
        assert self.sharing is not None
        self.sharing.close()
        if self._must_gain:
            return
        self._say(f"n_learners={self.sharing.n_learners} has no effect, one learner computes all gradients: {reason}")

    def _refuse(self, reason: Unsupported) -> None:
        self._close_trial()
        if self._compiler is not None:
            self._compiler.close()
        self._compiler = None
        if self._reason is None:
            self._is_told = False
        self._reason = reason

    def _say_refused(self) -> None:
        self._is_told = True
        self._say(f"Updates are not compiled: {self._reason}", "learner='eager' says that this is intended.")

    def _say(self, message: str, advice: str = "") -> None:
        """Tell the user why updates take longer than they could."""
        if self.update.algorithm.verbose >= 1:
            print(message)
        else:
            warn_user(f"{message}. {advice}".rstrip())

    def _seconds_worth_saving(self) -> float:
        """Seconds of the eager updates so far or of those to come, whichever are more."""
        if self._is_seeded_auto():
            # By their number: no update may be eager or compiled by chance.
            are_enough = self._planned_updates > self._n_updates_to_compile()
            n_updates = max(self._n_eager_updates, self._planned_updates if are_enough else 0)
            return n_updates * self._nominal_seconds()
        known = self._eager_seconds / self._n_eager_updates if self._n_eager_updates else self._nominal_seconds()
        return max(self._eager_seconds, self._planned_updates * known)

    def _nominal_seconds(self) -> float:
        """What an eager update takes, before any is measured."""
        return self.update.eager_seconds * self.update.n_minibatches()

    def _say_waiting(self, number: int) -> None:
        if self.update.algorithm.verbose < 1:
            return
        why = ", the first time only"
        if self._is_seeded_auto():
            why = f": with a seed, updates are compiled from number {number} on in every run"
        print(f"Waiting for the update to be compiled, which takes some seconds{why}")

    def _announce(self, number: int, seconds: float) -> None:
        if self.update.algorithm.verbose < 1 or self._compiler is None:
            return
        spent = self._compiler.seconds
        origin = "found on disk" if spent is None else f"compiled within {spent:.0f} s"
        gain = ""
        if self._n_eager_minibatches:
            before = self._eager_seconds / self._n_eager_minibatches
            gain = f" instead of {1e6 * before:,.0f}, {before / seconds:.1f} times as fast"
        print(f"Updates are compiled from number {number} on ({origin}): {1e6 * seconds:,.0f} us a minibatch{gain}")


def check_learner(learner: str) -> None:
    """:raises ValueError: if there is no such learner"""
    if learner not in LEARNERS:
        raise ValueError(f"learner must be one of {LEARNERS}, got {learner!r}")
