"""How a failure inside a sampler reaches the learner's caller."""

import pickle
import traceback
from dataclasses import dataclass

import cloudpickle


class SamplerError(RuntimeError):
    """
    An exception was raised inside a sampler, or the sampler died.

    The message has the sampler's own traceback; ``__cause__`` is the original exception wherever it could be pickled.
    """


class SamplerWarning(RuntimeWarning):
    """Something has happened to a sampler that training survives."""


CLOSED = "The samplers are closed. Make new ones, and give them to a model with set_env()."


@dataclass(frozen=True)
class Failure:
    """
    An exception on its way to the learner.

    :param summary: what was being done
    :param traceback: the sampler's traceback, as text
    :param pickled: the exception itself; ``None`` if it cannot be pickled
    """

    summary: str
    traceback: str
    pickled: bytes | None

    @classmethod
    def of(cls, error: BaseException, summary: str) -> "Failure":
        """
        :param error: the exception, where it was caught
        :param summary: what was being done
        :return: the exception, ready to travel
        """
        text = "".join(traceback.format_exception(error))
        try:
            pickled = cloudpickle.dumps(error)
        except Exception:
            # An exception may hold anything, a lock or a window handle; its traceback travels in any case.
            pickled = None
        return cls(summary, text, pickled)

    def to_error(self, sampler: int) -> SamplerError:
        """
        :param sampler: number of the sampler that it comes from
        :return: the error to raise in the learner
        """
        error = SamplerError(f"Sampler {sampler} failed while {self.summary}. Its traceback:\n\n{self.traceback}")
        error.__cause__ = self.original()
        # The original's own traceback was left behind in the sampler; the message has it as text.
        return error

    def original(self) -> BaseException | None:
        """:return: the exception itself, if it can be rebuilt here"""
        if self.pickled is None:
            return None
        try:
            original = pickle.loads(self.pickled)
        except Exception:
            # Exceptions with a constructor of their own often cannot be rebuilt from their arguments.
            return None
        return original if isinstance(original, BaseException) else None
