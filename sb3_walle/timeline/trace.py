"""A timeline as JSON in Chrome's trace format, which Perfetto reads, too."""

from collections.abc import Iterator
from typing import Any

from sb3_walle.timeline.spans import LEARNER, Spans

# All rows belong to one process of the viewer, as its threads: processes would not stand line by line.
PROCESS = 1


def trace_events(spans: Spans) -> Iterator[dict[str, Any]]:
    """
    Write rows as trace events: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times
    are in microseconds.

    :param spans: what all processes did
    :return: the events: names of the rows, complete events (``"X"``), and an arrow (``"s"``, ``"f"``) from the learner
        to the beginning of a chunk, for each ticket
    """

    def time(seconds: float) -> float:
        return round(1e6 * (seconds - spans.began), 3)

    for row in range(spans.n_samplers + 1):
        yield _metadata(row, "thread_name", {"name": row_name(row)})
        yield _metadata(row, "thread_sort_index", {"sort_index": row})
    for span in spans.spans:
        began, ended = time(span.began), time(span.ended)
        yield {
            **_event("X", span.row, began),
            "name": span.kind,
            "cat": "learner" if span.row == LEARNER else "sampler",
            "dur": round(ended - began, 3),
            "args": dict(span.details),
        }
    for number, ticket in enumerate(spans.tickets):
        arrow = {"name": "ticket", "cat": "ticket", "id": number}
        yield {**_event("s", LEARNER, time(ticket.given_at)), **arrow}
        yield {**_event("f", ticket.row, time(ticket.began)), **arrow, "bp": "e"}


def row_name(row: int) -> str:
    """
    :param row: row of a process
    :return: what a viewer calls it
    """
    return "learner" if row == LEARNER else f"sampler {row - 1}"


def _metadata(row: int, name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": row, "name": name, "args": values}


def _event(phase: str, row: int, time: float) -> dict[str, Any]:
    return {"ph": phase, "pid": PROCESS, "tid": row, "ts": time}
