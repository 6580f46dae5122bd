"""The steps of one environment that have arrived and lie in no column yet."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence


class Stream:
    """
    Steps are numbered in the order in which the environment made them, from 0. An *end* is the last step of an episode,
    also of one that was broken off because its sampler died.
    """

    def __init__(self) -> None:
        self.n_arrived = 0
        #: what waits, in order: one range of numbers, or several where runs were claimed in between
        self.waiting: deque[range] = deque()
        self.n_waiting = 0
        # Those that matter for what waits, ascending.
        self._ends: list[int] = []

    @property
    def next_step(self) -> int:
        """Number of the step that is taken next."""
        return self.waiting[0].start if self.waiting else self.n_arrived

    def arrive(self, n_steps: int, ends: Sequence[int]) -> None:
        """Note that further steps have arrived, and which of them are ends, counted from the first of them."""
        start, self.n_arrived = self.n_arrived, self.n_arrived + n_steps
        self._ends += [start + end for end in ends]
        self.n_waiting += n_steps
        if self.waiting and self.waiting[-1].stop == start:
            start = self.waiting.pop().start
        self.waiting.append(range(start, self.n_arrived))

    def break_off(self) -> None:
        """The next step to arrive does not continue the last one."""
        if not self.is_end(self.n_arrived - 1):
            self._ends.append(self.n_arrived - 1)

    def is_end(self, step: int) -> bool:
        """Whether a step is the last one of an episode; -1 stands for what was before the first step."""
        return step < 0 or self.first_end(step) == step

    def first_end(self, step: int) -> int | None:
        """The first end from a step on; ``None`` if it has not arrived."""
        index = bisect_left(self._ends, step)
        return self._ends[index] if index < len(self._ends) else None

    def starts(self) -> Iterator[tuple[int, int]]:
        """Where episodes begin among what waits, each with where the range that holds it stops."""
        for steps in self.waiting:
            start: int | None = steps.start if self.is_end(steps.start - 1) else self._start_after(steps.start)
            while start is not None and start < steps.stop:
                yield start, steps.stop
                start = self._start_after(start)

    def take(self, n_steps: int) -> range:
        """Take as many steps of what waits first, or as many as are consecutive."""
        first = self.waiting.popleft()
        taken, rest = first[:n_steps], first[n_steps:]
        if rest:
            self.waiting.appendleft(rest)
        self.n_waiting -= len(taken)
        # The last one taken tells whether an episode begins with the next.
        del self._ends[: bisect_left(self._ends, taken.stop - 1)]
        return taken

    def claim(self, steps: range) -> None:
        """Take consecutive steps out of what waits, wherever they are."""
        index = next(index for index, waiting in enumerate(self.waiting) if steps.stop <= waiting.stop)
        around = self.waiting[index]
        del self.waiting[index]
        for part in (range(steps.stop, around.stop), range(around.start, steps.start)):
            if part:
                self.waiting.insert(index, part)
        self.n_waiting -= len(steps)

    def _start_after(self, step: int) -> int | None:
        end = self.first_end(step)
        return None if end is None else end + 1
