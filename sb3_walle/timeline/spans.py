"""Puts the events of a timeline into rows, one for each process."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sb3_walle.timeline.clocks import CollectedChunk, clock_shifts
from sb3_walle.timeline.timeline import GivenTicket, TakenChunk, Timeline

CHUNK, WAIT_FOR_CHUNK, WAIT_FOR_TICKET = "chunk", "wait for a chunk", "wait for a ticket"
#: of a sampler: it has a ticket and has not begun, because a message is on its way, the CPUs are busy, or it died
DELAY = "delay"
#: row of the learner; that of a sampler is its number plus one
LEARNER = 0


class Span(NamedTuple):
    """
    What a process did for some time.

    :param row: row of the process
    :param kind: what it did
    :param began: when it began, by the learner's clock
    :param ended: when it ended, likewise
    :param details: what else is known, by name
    """

    row: int
    kind: str
    began: float
    ended: float
    details: Mapping[str, int]


class TicketArrow(NamedTuple):
    """When the learner gave a ticket, and when the sampler of that row began with it."""

    row: int
    number: int
    given_at: float
    began: float


@dataclass(frozen=True)
class Spans:
    """
    The rows of a timeline.

    :param began: when the timeline begins
    :param n_samplers: number of samplers
    :param spans: what all processes did. In a row they follow each other, but the learner waits within rollouts
    :param tickets: the tickets whose chunks have arrived
    """

    began: float
    n_samplers: int
    spans: list[Span]
    tickets: list[TicketArrow]


def arrange(timeline: Timeline) -> Spans:
    """
    :param timeline: what was recorded
    :return: the same in rows
    """
    open_tickets: dict[tuple[int, int], float] = {}
    collected: dict[int, list[CollectedChunk]] = defaultdict(list)
    spans = []
    for event in timeline.events:
        if isinstance(event, GivenTicket):
            open_tickets[event.sampler, event.number] = event.at
        elif isinstance(event, TakenChunk):
            given_at = open_tickets.pop((event.sampler, event.seal.ticket), -math.inf)
            collected[event.sampler].append(CollectedChunk(event, given_at))
            spans.append(Span(LEARNER, WAIT_FOR_CHUNK, event.wait_began, event.taken_at, {"sampler": event.sampler}))
        else:
            spans.append(Span(LEARNER, event.kind, event.began, event.ended, {}))
    at_work = {sampler for sampler, _ in open_tickets}
    ended = max((span.ended for span in spans), default=timeline.began)
    tickets = []
    for sampler, chunks in collected.items():
        of_sampler = list(_sampler_spans(sampler + 1, chunks, math.inf if sampler in at_work else ended))
        spans += of_sampler
        begun = [span.began for span in of_sampler if span.kind == CHUNK]
        tickets += [
            TicketArrow(sampler + 1, chunk.seal.ticket, given_at, began)
            for (chunk, given_at), began in zip(chunks, begun, strict=True)
            if given_at > -math.inf
        ]
    return Spans(timeline.began, 1 + max([*collected, *at_work], default=-1), spans, tickets)


def _sampler_spans(row: int, chunks: Sequence[CollectedChunk], idle_until: float) -> Iterator[Span]:
    """
    :param idle_until: until when a sampler without a ticket waits
    :return: what a sampler did, from its first chunk on, without gaps where its tickets are known
    """
    free_since = -math.inf
    for (chunk, given_at), shift in zip(chunks, clock_shifts(chunks), strict=True):
        # Times of another machine are known up to that of a message.
        began = max(chunk.began + shift, free_since)
        ended = max(chunk.ended + shift, began)
        ready_at = min(max(given_at, free_since), began)
        if -math.inf < free_since < ready_at:
            yield Span(row, WAIT_FOR_TICKET, free_since, ready_at, {})
        if -math.inf < ready_at < began:
            yield Span(row, DELAY, ready_at, began, {})
        seal = chunk.seal
        yield Span(row, CHUNK, began, ended, {"ticket": seal.ticket, "version": seal.version, "steps": seal.n_steps})
        free_since = ended
    if free_since < idle_until < math.inf:
        yield Span(row, WAIT_FOR_TICKET, free_since, idle_until, {})
