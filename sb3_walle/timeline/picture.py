"""A timeline as a picture. It uses no state of pyplot, so that a caller's own figures stay as they are."""

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sb3_walle.timeline.spans import CHUNK, DELAY, LEARNER, WAIT_FOR_CHUNK, WAIT_FOR_TICKET, Span, Spans
from sb3_walle.timeline.timeline import ROLLOUT, UPDATE
from sb3_walle.timeline.trace import row_name

N_ITERATIONS = 3
# Of the Okabe-Ito palette, which is told apart with any kind of colour vision. What comes later lies upon the others.
CHUNK_COLOUR, ROLLOUT_COLOUR, UPDATE_COLOUR, WAIT_COLOUR, DELAY_COLOUR = (
    "#009E73",
    "#56B4E9",
    "#0072B2",
    "#E69F00",
    "#DDDDDD",
)
COLOURS = {
    UPDATE: UPDATE_COLOUR,
    ROLLOUT: ROLLOUT_COLOUR,
    CHUNK: CHUNK_COLOUR,
    WAIT_FOR_CHUNK: WAIT_COLOUR,
    WAIT_FOR_TICKET: WAIT_COLOUR,
    DELAY: DELAY_COLOUR,
}
LEGEND = {
    "update": UPDATE_COLOUR,
    "values, callbacks, buffer": ROLLOUT_COLOUR,
    "chunk": CHUNK_COLOUR,
    "waiting": WAIT_COLOUR,
    "has a ticket, but no CPU": DELAY_COLOUR,
}
ITERATION_LINE: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (1, 2))}
# Rows of more samplers would not fit on a page with their names.
MAX_NAMES = 30


def draw_timeline(spans: Spans, title: str, image: io.BufferedWriter) -> None:
    """
    Draw the last iterations, a row for each process, as PNG.

    :param spans: what all processes did
    :param title: what was trained
    :param image: the file to write to
    """
    n_rows = spans.n_samplers + 1
    figure = Figure(figsize=(12, 2 + 0.28 * min(n_rows, 2 * MAX_NAMES)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    began, ended, starts = _window(spans)
    axes.set_xlim(began - spans.began, ended - spans.began)
    axes.set_ylim(n_rows - 0.4, -0.6)
    shown = [span for span in spans.spans if span.ended > began and span.began < ended]
    for row in range(n_rows):
        of_row = [span for span in shown if span.row == row]
        for kind, colour in COLOURS.items():
            bars = [(span.began - spans.began, span.ended - span.began) for span in of_row if span.kind == kind]
            axes.broken_barh(bars, (row - 0.4, 0.8), facecolor=colour, linewidth=0)
        share = f"{_share_at_work(of_row, row, began, ended):.0%}"
        axes.annotate(share, (1.005, row), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    for start in starts:
        axes.axvline(start - spans.began, **ITERATION_LINE)
    _label(axes, title, n_rows)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=len(LEGEND) + 1, frameon=False)
    figure.savefig(image, format="png", dpi=120)


def _label(axes: Axes, title: str, n_rows: int) -> None:
    axes.set_title(title, loc="left")
    axes.annotate("at work", (1.005, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points")
    rows = [LEARNER, *range(LEARNER + 1, n_rows, math.ceil(n_rows / MAX_NAMES))]
    axes.set_yticks(rows, [row_name(row) for row in rows])
    axes.set_xlabel("Time since training began (seconds)")
    axes.spines[["top", "right"]].set_visible(False)


def _legend() -> list[Artist]:
    patches = [Patch(color=colour, label=label) for label, colour in LEGEND.items()]
    return [*patches, Line2D([], [], label="an iteration begins", **ITERATION_LINE)]


def _window(spans: Spans) -> tuple[float, float, list[float]]:
    """
    Choose the iterations before the last one. In the last one, samplers have no rollout to collect ahead, so that it
    does not look like the others.

    :return: when they begin and end, and when each of them begins
    """
    starts = [span.began for span in spans.spans if span.kind == ROLLOUT]
    if len(starts) > N_ITERATIONS:
        return starts[-N_ITERATIONS - 1], starts[-1], starts[-N_ITERATIONS - 1 : -1]
    ended = max((span.ended for span in spans.spans), default=spans.began + 1)
    return min(starts, default=spans.began), ended, starts


def _share_at_work(spans: Sequence[Span], row: int, began: float, ended: float) -> float:
    """Share of the time in which a process works: the learner whenever it does not wait, a sampler at its chunks."""
    kind = WAIT_FOR_CHUNK if row == LEARNER else CHUNK
    seconds = sum(min(span.ended, ended) - max(span.began, began) for span in spans if span.kind == kind)
    share = seconds / (ended - began)
    return 1 - share if row == LEARNER else share
