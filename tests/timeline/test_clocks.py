"""Times of samplers on other machines fit the learner's clock up to the time of a message."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_walle.timeline.clocks import CollectedChunk, clock_shifts
from sb3_walle.timeline.spans import CHUNK, DELAY, LEARNER, WAIT_FOR_CHUNK, WAIT_FOR_TICKET, arrange
from sb3_walle.timeline.timeline import GivenTicket, TakenChunk, Timeline
from sb3_walle.transport.chunk import Seal

#: of each chunk: time on the way, to work, on the way back, and until the next ticket
Schedule = list[tuple[float, float, float, float]]
LONGEST_MESSAGE = 0.01
MESSAGE = st.floats(0, LONGEST_MESSAGE)
SCHEDULES = st.lists(st.tuples(MESSAGE, st.floats(0.001, 1), MESSAGE, st.floats(0, 1)), min_size=1, max_size=20)
OFFSETS = st.one_of(st.just(0.0), st.floats(-1e5, 1e5))


def events(schedule: Schedule, offsets: list[float], sampler: int = 0) -> list[tuple[GivenTicket, TakenChunk]]:
    """A sampler at work, whose clock is ahead by a number of seconds, for each chunk."""
    now, made = 100.0, []
    for number, ((way, work, way_back, pause), offset) in enumerate(zip(schedule, offsets, strict=True)):
        began = now + way
        taken = began + work + way_back
        chunk = TakenChunk(sampler, Seal(number, 0, 1), began + offset, began + work + offset, now, taken)
        made.append((GivenTicket(sampler, number, now), chunk))
        now = taken + pause
    return made


def shifts_of(schedule: Schedule, offsets: list[float]) -> list[float]:
    return clock_shifts([CollectedChunk(chunk, ticket.at) for ticket, chunk in events(schedule, offsets)])


@given(schedule=SCHEDULES)
def test_processes_of_one_machine_have_one_clock(schedule: Schedule) -> None:
    assert shifts_of(schedule, [0.0] * len(schedule)) == [0.0] * len(schedule)


@given(schedule=SCHEDULES, offset=OFFSETS)
def test_another_clock_is_known_up_to_the_time_of_a_message(schedule: Schedule, offset: float) -> None:
    for shift in shifts_of(schedule, [offset] * len(schedule)):
        assert shift == pytest.approx(-offset, abs=LONGEST_MESSAGE + 1e-6)


@given(before=SCHEDULES, after=SCHEDULES, offset=OFFSETS, further=st.floats(10, 1e5))
def test_a_successor_may_run_on_another_machine(
    before: Schedule, after: Schedule, offset: float, further: float
) -> None:
    offsets = [offset] * len(before) + [offset + further] * len(after)
    for shift, true in zip(shifts_of(before + after, offsets), offsets, strict=True):
        assert shift == pytest.approx(-true, abs=LONGEST_MESSAGE + 1e-6)


def test_a_ticket_that_is_not_kept() -> None:
    ((_, chunk),) = events([(0.001, 1.0, 0.002, 0.0)], [50.0])
    (shift,) = clock_shifts([CollectedChunk(chunk, -math.inf)])
    assert shift == pytest.approx(-50, abs=0.0021)
    ((_, chunk),) = events([(0.001, 1.0, 0.002, 0.0)], [0.0])
    assert clock_shifts([CollectedChunk(chunk, -math.inf)]) == [0.0]


@given(schedules=st.lists(st.tuples(SCHEDULES, OFFSETS), min_size=1, max_size=3), kept=st.integers(1, 60))
def test_rows_are_gapless_and_in_order(schedules: list[tuple[Schedule, float]], kept: int) -> None:
    timeline = Timeline(max_events=kept)
    for sampler, (schedule, offset) in enumerate(schedules):
        for pair in events(schedule, [offset] * len(schedule), sampler):
            for event in pair:
                timeline.note(event)
    spans = arrange(timeline)
    assert 1 <= spans.n_samplers <= len(schedules)
    assert {span.kind for span in spans.spans if span.row == LEARNER} <= {WAIT_FOR_CHUNK}
    for row in range(1, spans.n_samplers + 1):
        of_row = [span for span in spans.spans if span.row == row]
        assert {span.kind for span in of_row} <= {CHUNK, WAIT_FOR_TICKET, DELAY}
        assert all(span.began <= span.ended for span in of_row)
        assert all(first.ended <= then.began for first, then in pairwise(of_row))
        chunks = [span for span in of_row if span.kind == CHUNK]
        arrows = [arrow for arrow in spans.tickets if arrow.row == row]
        assert [arrow.began for arrow in arrows] == [span.began for span in chunks[len(chunks) - len(arrows) :]]
        if len(arrows) == len(chunks):
            assert all(first.ended == then.began for first, then in pairwise(of_row))


def test_what_a_sampler_waits_for() -> None:
    timeline = Timeline(max_events=100)
    # The second ticket comes late, and the CPU is busy then. The third one is there before it is needed.
    for event in (
        GivenTicket(0, 0, 1.0),
        TakenChunk(0, Seal(0, 7, 5), 1.0, 2.0, 1.5, 2.0),
        GivenTicket(0, 1, 2.5),
        GivenTicket(0, 2, 2.5),
        TakenChunk(0, Seal(1, 8, 5), 2.75, 3.0, 2.5, 3.0),
        TakenChunk(0, Seal(2, 8, 5), 3.0, 4.0, 3.0, 4.0),
    ):
        timeline.note(event)
    rows = arrange(timeline).spans
    assert [(span.kind, span.began, span.ended) for span in rows if span.row == 1] == [
        (CHUNK, 1.0, 2.0),
        (WAIT_FOR_TICKET, 2.0, 2.5),
        (DELAY, 2.5, 2.75),
        (CHUNK, 2.75, 3.0),
        (CHUNK, 3.0, 4.0),
    ]
    assert rows[0].details == {"sampler": 0}
    assert [span.details for span in rows if span.kind == CHUNK][2] == {"ticket": 2, "version": 8, "steps": 5}


def test_a_sampler_that_is_at_work_at_the_end_does_not_wait() -> None:
    timeline = Timeline(max_events=100)
    for sampler in (0, 1):
        timeline.note(GivenTicket(sampler, 0, 1.0))
        timeline.note(TakenChunk(sampler, Seal(0, 0, 1), 1.0, 2.0 + sampler, 1.0, 2.0 + sampler))
    timeline.note(GivenTicket(1, 1, 3.0))
    spans = arrange(timeline)
    assert [(span.row, span.began, span.ended) for span in spans.spans if span.kind == WAIT_FOR_TICKET] == [
        (1, 2.0, 3.0)
    ]
