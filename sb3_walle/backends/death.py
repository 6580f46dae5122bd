"""The death of a sampler, and what the user is told of it."""

import signal
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from sb3_walle.samplers import requests
from sb3_walle.samplers.errors import Failure, SamplerError, shortened

HEADING = "Most recent call first:"
FRAME = "  File "
# From here on outwards, every sampler is in the same place.
_OUTERMOST = f'{FRAME}"{Path(requests.__file__)}"'


@dataclass(frozen=True)
class Death:
    """
    A sampler has ended without being asked to. All its replies have been delivered before.

    :param how: how it ended, as in "was killed by signal 11 (SIGSEGV) while collecting experience"
    :param traceback: where, if that is known; otherwise empty
    :param failure: the exception that it died of, if it was one
    :param hung: whether it was killed because a step took too long, which may pass
    :param cause: the same number for all samplers that died of one thing, a machine's failure say
    """

    sampler: int
    how: str
    traceback: str = ""
    failure: Failure | None = None
    hung: bool = False
    cause: int | None = None

    def __str__(self) -> str:
        return f"Sampler {self.sampler} {self.how}"

    def with_traceback(self) -> str:
        """What happened, and where; cut in the middle if that is long."""
        return shortened(self.full_text())

    def full_text(self) -> str:
        """What happened, and where."""
        return f"{self}. Its traceback:\n\n{self.traceback.rstrip()}\n" if self.traceback else f"{self}."

    def after(self, other: "Death | None") -> str:
        """
        What happened and where, in one line if it is the same place as another death of which the user was told before:
        samplers of the same environment tend to die in the same place.
        """
        if other is None or not self._frames() or self._frames() != other._frames():
            return self.with_traceback()
        return f"{self}, in the same place as the one before: {shortened(self._message())}"

    def to_error(self) -> SamplerError:
        return self.explained_by(self.with_traceback(), self.full_text())

    def explained_by(self, message: str, full_message: str) -> SamplerError:
        """
        :param message: the error's message
        :param full_message: the same with nothing cut
        :return: the error to raise in the learner, with the exception that the sampler died of as its cause
        """
        error = SamplerError(message, full_message)
        if self.failure is not None:
            error.__cause__ = self.failure.original()
        return error

    def repeats(self, other: "Death") -> bool:
        """Whether the sampler died at the same place of the same exception or signal as another one."""
        if self.hung or self._kind() != other._kind():
            return False
        return self._places() == other._places() != []

    def _kind(self) -> str:
        return self.how if self.failure is None else self.failure.kind

    def _places(self) -> list[str]:
        return [line for line in self.traceback.splitlines() if line.startswith(FRAME)]

    def _frames(self) -> list[str]:
        lines = self.traceback.strip().splitlines()
        # The last line is the exception's message, which may have numbers of the moment in it.
        return lines if self.failure is None else lines[:-1]

    def _message(self) -> str:
        lines = self.traceback.strip().splitlines()
        # A crashing interpreter names the innermost line first, everything else what matters last.
        return lines[1].strip() if lines[0] == HEADING else lines[-1]


def how_it_ended(exit_code: int) -> str:
    """
    :param exit_code: exit code of a process, or minus the number of the signal that killed it
    :return: as in "was killed by signal 11 (SIGSEGV)"
    """
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    number = -exit_code
    # Real-time signals have no name.
    name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
    hint = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({name}{hint})"


def readable(dump: str) -> str:
    """
    :param dump: what ``faulthandler`` wrote when an interpreter crashed, or anything else
    :return: the lines of it that tell where the environment was; anything else as it is
    """
    frames = [line for line in dump.splitlines() if line.startswith(FRAME)]
    inner = list(takewhile(lambda line: not line.startswith(_OUTERMOST), frames))
    if not dump.startswith("Fatal Python error") or not inner:
        return dump
    return "\n".join([HEADING, *inner])
