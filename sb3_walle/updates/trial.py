"""Whether several learners are faster than one."""

from collections import Counter
from collections.abc import Callable
from statistics import median

from sb3_walle.updates.program_compiler import ProgramCompiler
from sb3_walle.updates.unsupported import Unsupported

# The first update of a program is no measure of it: its memory is not in the caches.
N_NOT_TIMED = 1
N_TIMED = 3
# In updates of few minibatches, of which one tells little.
MIN_MINIBATCHES = 100
# How much faster several have to be. Each takes a core.
MIN_GAIN = 1.1


class Trial:
    """
    Finds out by the first compiled updates: some by one learner, and as soon as programs for several are compiled, some
    by these.

    :param one: compiles for one learner
    :param make_several: makes what compiles for several, or raises ``Unsupported``
    """

    def __init__(self, one: ProgramCompiler, make_several: Callable[[], ProgramCompiler]) -> None:
        self._one, self._make_several = one, make_several
        self._several: ProgramCompiler | None = None
        self._seconds: dict[ProgramCompiler, list[float]] = {one: []}
        self._n_minibatches: Counter[ProgramCompiler] = Counter()
        #: how many times as fast several are; ``None`` as long as that is not known
        self.gain: float | None = None

    @property
    def is_won(self) -> bool:
        """Whether several make all further updates."""
        return self.gain is not None and self.gain >= MIN_GAIN

    def compiler(self) -> ProgramCompiler:
        """Of the next update."""
        if self.gain is not None or not self._is_timed(self._one):
            return self._several if self.is_won and self._several is not None else self._one
        try:
            return self._one if (several := self._compiled_for_several()) is None else several
        except Unsupported:
            self.gain = 0.0
            return self._one

    def note(self, compiler: ProgramCompiler, seconds: float, n_minibatches: int) -> float | None:
        """
        :param compiler: of the last update
        :param seconds: what it has taken for each minibatch
        :param n_minibatches: how many there were
        :return: how many times as fast several are, once, as soon as that is known
        """
        if self.gain is not None:
            return None
        self._seconds[compiler].append(seconds)
        self._n_minibatches[compiler] += n_minibatches
        if self._several is not None and self._is_timed(self._several):
            one, several = (median(self._seconds[each][N_NOT_TIMED:]) for each in (self._one, self._several))
            self.gain = one / several
        return self.gain

    def close(self) -> None:
        for compiler in self._seconds:
            compiler.close()

    def _compiled_for_several(self) -> ProgramCompiler | None:
        """As soon as the programs are there."""
        if self._several is None:
            self._several = self._make_several()
            self._seconds[self._several] = []
            self._several.begin()
        return None if self._several.programs(wait=False) is None else self._several

    def _is_timed(self, compiler: ProgramCompiler) -> bool:
        n_updates, n_minibatches = len(self._seconds[compiler]), self._n_minibatches[compiler]
        return n_updates >= N_NOT_TIMED + N_TIMED and n_minibatches >= MIN_MINIBATCHES
