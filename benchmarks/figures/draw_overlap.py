"""What the report does not show: an iteration from end to end, with and without overlap, beside SB3's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures.canvas import Canvas
from benchmarks.figures.figures_tables import OverlapRow, grouped
from benchmarks.plot_style import BLUE, ORANGE


def draw_overlap(rows: Sequence[OverlapRow], image: Path) -> None:
    """Draw a bar for each contender and mode: an update, and the time in which the learner waits for experience."""
    by_workload = grouped((row.workload, row) for row in rows)
    canvas = Canvas(list(by_workload))
    for workload, of_workload in by_workload.items():
        panel = canvas.panels[workload]
        places = np.arange(len(of_workload))
        learning, waiting, totals = (
            np.array([each.median for each in spreads])
            for spreads in zip(
                *((row.learning_seconds, row.waiting_seconds, row.seconds) for row in of_workload), strict=True
            )
        )
        panel.barh(places, learning, color=BLUE, label="learning")
        panel.barh(places, waiting, left=learning, color=ORANGE, label="waiting for experience")
        lows, highs = (np.array([getattr(row.seconds, end) for row in of_workload]) for end in ("low", "high"))
        ends = learning + waiting
        panel.errorbar(
            ends,
            places,
            xerr=[np.maximum(0, totals - lows), np.maximum(0, highs - totals)],
            fmt="none",
            ecolor="black",
            capsize=3,
        )
        for place, total, end in zip(places, totals, np.maximum(ends, highs), strict=True):
            panel.annotate(f"{total:.3g} s", (end, place), (6, 0), textcoords="offset points", va="center")
        panel.set_yticks(places, [name_of(row) for row in of_workload])
        panel.margins(x=0.15)
        panel.set_xlim(left=0)
        panel.grid(visible=False, axis="y")
        panel.set_xlabel("Seconds an iteration")
    canvas.first.invert_yaxis()
    canvas.save(image)


def name_of(row: OverlapRow) -> str:
    """
    :param row: a contender in a mode
    :return: what the figure calls it
    """
    return f"{row.contender}\n{row.mode}" if row.contender.startswith("AsyncPPO") else row.contender.replace(", ", "\n")
