"""What learner and samplers did and when, as it was measured."""

from collections import deque
from time import perf_counter
from typing import NamedTuple, TypeAlias

from sb3_walle.transport.chunk import Seal

ROLLOUT, UPDATE = "rollout", "update"


class GivenTicket(NamedTuple):
    """The learner has given a ticket to a sampler, at a time of its clock."""

    sampler: int
    number: int
    at: float


class TakenChunk(NamedTuple):
    """
    The learner has taken a chunk.

    :param sampler: number of the sampler
    :param seal: what the chunk holds
    :param began: when the sampler began it, by the clock of the sampler's machine
    :param ended: when the sampler completed it, by the same clock
    :param wait_began: since when the learner waited for it, by the learner's clock
    :param taken_at: when the learner had it, by the learner's clock
    """

    sampler: int
    seal: Seal
    began: float
    ended: float
    wait_began: float
    taken_at: float


class LearnerSpan(NamedTuple):
    """The learner has collected a rollout or made an update, by its clock."""

    kind: str
    began: float
    ended: float


TimelineEvent: TypeAlias = GivenTicket | TakenChunk | LearnerSpan


class Timeline:
    """
    Keeps the last events, in the order in which the learner knew of them. Times are those of ``perf_counter()``.

    :param max_events: how many events are kept
    """

    def __init__(self, max_events: int) -> None:
        self.began = perf_counter()
        self.events: deque[TimelineEvent] = deque(maxlen=max_events)
        #: number of all events, those included that are not kept
        self.n_events = 0

    def note(self, event: TimelineEvent) -> None:
        """Keep an event."""
        self.events.append(event)
        self.n_events += 1
