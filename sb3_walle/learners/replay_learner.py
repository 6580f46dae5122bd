"""The updates of off-policy algorithms, compiled where that pays."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from sb3_walle.learners.compilation import Compilations, Compiled
from sb3_walle.learners.learner import Learner
from sb3_walle.learners.replay_groups import Group
from sb3_walle.learners.replay_step import ReplayStep
from sb3_walle.learners.replay_trace import TracedReplayStep, check_policy, trace_step, what_decides
from sb3_walle.learners.replay_update import ReplayUpdate
from sb3_walle.learners.unsupported import Unsupported

# Updates of few gradient steps are many. Looking at all that a program depends on takes a tenth of one.
UPDATES_PER_LOOK = 100
# Gradient steps are many, and each is worth a millisecond or more.
STEPS_PER_COMPARISON = 1_000
# Comparisons that may fail, one after the other. A step may be nothing but rounding, as that of the entropy coefficient
# where the entropy happens to be what it should be. A policy that computes something else fails all of them.
N_DOUBTS = 2


class ReplayLearner(Learner):
    """
    Updates the policy of an off-policy algorithm.

    :param algorithm: the algorithm
    :param choice: what the user asked for, one of :data:`~sb3_walle.learners.learner.LEARNERS`
    """

    eager_seconds: ClassVar[float] = 2e-3

    def __init__(self, algorithm: Any, choice: str) -> None:
        super().__init__(algorithm, choice)
        self._gradient_steps = 1
        self._seen: tuple = ()
        self._decisive: Hashable = None
        self._n_updates_since_look = 0
        self._groups: list[Group] = []
        #: comparisons that have failed since the last one that has not
        self._n_doubts = 0

    def expect(self, gradient_steps: int) -> None:
        """
        :param gradient_steps: number of gradient steps of an update
        """
        self._gradient_steps = gradient_steps

    def plan(self, n_updates: int) -> None:
        """
        Prepare a compiled update where it pays.

        :param n_updates: number of updates to come
        """
        super().plan(n_updates)
        # The first update looks again: callbacks may change the policy when training starts.
        self._seen = ()

    @abstractmethod
    def _make_groups(self) -> list[Group]:
        """:return: the algorithm's parameters; raises ``Unsupported`` if an optimizer is not known"""

    @abstractmethod
    def _kinds(self) -> dict[str, type[ReplayStep]]:
        """:return: the gradient steps that the algorithm makes, by name"""

    @abstractmethod
    def _make_update(self, groups: list[Group]) -> ReplayUpdate:
        """
        :param groups: the algorithm's groups
        :return: what makes its updates
        """

    @abstractmethod
    def _check(self) -> None:
        """:raises Unsupported: if the algorithm does something that its traced steps do not"""

    def _what_decides(self) -> Hashable:
        algorithm = self._algorithm
        seen = (id(algorithm.policy), id(algorithm.replay_buffer), id(algorithm._vec_normalize_env))
        self._n_updates_since_look += 1
        if seen != self._seen or self._n_updates_since_look >= UPDATES_PER_LOOK:
            if getattr(algorithm, "check_nan", False):
                raise Unsupported("check_nan looks at every gradient")
            check_policy(algorithm)
            self._check()
            self._decisive = what_decides(algorithm, self._make_groups())
            self._seen, self._n_updates_since_look = seen, 0
        return self._decisive

    def _compile(self) -> Compilations[TracedReplayStep]:
        groups = self._make_groups()
        steps = {name: trace_step(self._algorithm, kind, groups) for name, kind in self._kinds().items()}
        self._groups, self._n_doubts = groups, 0
        return Compilations(steps)

    def _update(self, compiled: Mapping[str, Compiled[TracedReplayStep]], number: int, is_compared: bool) -> int:
        is_compared = is_compared or self._n_doubts > 0
        may_differ = self._n_doubts < N_DOUBTS
        is_same = self._make_update(self._groups).train(self._gradient_steps, compiled, is_compared, may_differ)
        self._n_doubts = 0 if is_same else self._n_doubts + 1
        return self._gradient_steps

    def _minibatches_per_update(self) -> int:
        return self._gradient_steps

    def _n_programs(self) -> int:
        return len(self._kinds())

    def _n_minibatches_made(self) -> int:
        return int(self._algorithm._n_updates)

    def _minibatches_per_comparison(self) -> int:
        return STEPS_PER_COMPARISON
