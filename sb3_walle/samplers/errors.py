"""How a failure inside a sampler reaches the learner's caller."""

import pickle
import traceback
from dataclasses import dataclass

import cloudpickle
from gymnasium import spaces

# An environment that raises Python's recursion limit can have a million frames, which take 20 s to format.
MAX_FRAMES = 1_000
#: longer texts are cut in the middle before a user reads them: exceptions may show whole arrays or files
MAX_TEXT = 8_000


class SamplerError(RuntimeError):
    """
    An exception was raised inside a sampler, or the sampler died.

    The message has the sampler's own traceback; ``__cause__`` is the original exception wherever it could be pickled.
    Both cut texts of more than 8,000 characters in the middle; ``full_message`` has everything.

    :param message: what has happened
    :param full_message: the same with nothing cut, by default the message
    """

    def __init__(self, message: str, full_message: str | None = None) -> None:
        super().__init__(message)
        #: the message with nothing cut
        self.full_message = message if full_message is None else full_message


class SamplerWarning(RuntimeWarning):
    """Something has happened to a sampler that training survives."""


class ObservationError(ValueError):
    """An environment returned an observation that does not fit its observation space."""


class UnsupportedSpaceError(NotImplementedError):
    """
    Samplers cannot store observations of a space.

    :param space: the observation space
    """

    def __init__(self, space: spaces.Space) -> None:
        super().__init__(space)
        self.space = space

    def __str__(self) -> str:
        return f"{self.space} observation space is not supported"


def shortened(text: str) -> str:
    """:return: the text, cut in the middle if it is longer than ``MAX_TEXT``"""
    n_cut = len(text) - MAX_TEXT
    if n_cut <= 0:
        return text
    return f"{text[: MAX_TEXT // 2]}\n[... {n_cut:,} characters are left out ...]\n{text[-MAX_TEXT // 2 :]}"


CLOSED = "The samplers are closed. Make new ones, and give them to a model with set_env()."


@dataclass(frozen=True)
class Failure:
    """
    An exception on its way to the learner.

    :param summary: what was being done
    :param traceback: the sampler's traceback, as text
    :param pickled: the exception itself; ``None`` if it cannot be pickled
    :param kind: name of its class
    """

    summary: str
    traceback: str
    pickled: bytes | None
    kind: str = ""

    @classmethod
    def of(cls, error: BaseException, summary: str) -> "Failure":
        text = "".join(traceback.format_exception(error, limit=_limit(error)))
        try:
            pickled = cloudpickle.dumps(error)
        except Exception:
            # An exception may hold anything, a lock or a window handle; its traceback travels in any case.
            pickled = None
        return cls(summary, text, pickled, f"{type(error).__module__}.{type(error).__qualname__}")

    def to_error(self, sampler: int) -> SamplerError:
        """:return: the error to raise in the learner"""
        text = f"Sampler {sampler} failed while {self.summary}. Its traceback:\n\n{self.traceback}"
        error = SamplerError(shortened(text), text)
        error.__cause__ = self.original()
        # The original's own traceback was left behind in the sampler; the message has it as text.
        return error

    def original(self) -> BaseException | None:
        """:return: the exception itself with its long texts cut, if it can be rebuilt here"""
        if self.pickled is None:
            return None
        try:
            original = pickle.loads(self.pickled)
        except Exception:
            # Exceptions with a constructor of their own often cannot be rebuilt from their arguments.
            return None
        if not isinstance(original, BaseException):
            return None
        original.args = tuple(shortened(part) if isinstance(part, str) else part for part in original.args)
        return original


def _limit(error: BaseException) -> int | None:
    """How many frames of each traceback to format: the innermost ones where there are too many."""
    chain = [error]
    for link in chain:
        frame, depth = link.__traceback__, 0
        while frame is not None:
            frame, depth = frame.tb_next, depth + 1
            if depth > MAX_FRAMES:
                return -MAX_FRAMES
        chain += [other for other in (link.__cause__, link.__context__) if other is not None and other not in chain]
    return None
