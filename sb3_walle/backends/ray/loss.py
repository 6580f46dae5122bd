"""The loss of a host, and what follows for its samplers."""

import time

import cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError

from sb3_walle.backends.death import Death
from sb3_walle.backends.ray.link import Link
from sb3_walle.backends.supervision import RESTART_WINDOW
from sb3_walle.samplers.errors import Failure, SamplerError


class Loss:
    """
    A host is lost, with all its samplers.

    :param link: the link to the host
    :param error: how that was noticed
    :param cause: a number that no other loss has: all samplers that are lost with a host count as one death
    """

    def __init__(self, link: Link, error: BaseException, cause: int) -> None:
        self.link = link
        self._cause, self._at = cause, time.monotonic()
        self._how = how_it_was_lost(error)
        self._failure: Failure | None = None
        if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
            kind = type(error.cause)
            pickled = cloudpickle.dumps(error.cause)
            self._failure = Failure("", str(error), pickled, f"{kind.__module__}.{kind.__qualname__}")
        #: whether the node is as good as before, as far as one can say
        self.is_of_host_alone = self._failure is not None or self._how == "died"

    def death_of(self, sampler: int) -> Death:
        """
        :param sampler: number of one of the host's samplers
        :return: what has become of it
        """
        how = f"was lost with the host on node {self.link.node.address}, which {self._how}"
        failure = self._failure
        return Death(sampler, how, "" if failure is None else failure.traceback, failure, cause=self._cause)

    def repeats(self, other: "Loss | None") -> bool:
        """Whether this host has failed at the same place as another one not long ago."""
        if other is None or other is self or self._at - other._at > RESTART_WINDOW:
            return False
        return self.death_of(0).repeats(other.death_of(0))

    @property
    def is_failure(self) -> bool:
        """Whether an exception has ended the host."""
        return self._failure is not None

    def to_error(self) -> SamplerError:
        """:return: the error to raise when hosts fail at the same place again"""
        death = self.death_of(min(self.link.samplers, default=0))
        reason = "A host failed before at the same place: another one would not help."
        return death.explained_by(f"{death.with_traceback()}\n{reason}", f"{death.full_text()}\n{reason}")


def how_it_was_lost(error: BaseException) -> str:
    """:return: what became of a host, as in 'the host, which died'"""
    if isinstance(error, TimeoutError):
        return str(error)
    if isinstance(error, RayActorError):
        return "died with its node" if "node has died" in str(error) else "died"
    # The last line of the traceback that Ray makes the message of.
    return f"failed ({str(error).strip().rsplit(chr(10), 1)[-1]})"
