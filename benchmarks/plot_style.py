"""Colours and lines of all figures."""

from typing import Any, TypeAlias

from matplotlib.axes import Axes

#: colour, and style of the line
Style: TypeAlias = tuple[str, Any]

# Colours of the Okabe-Ito palette, which are told apart with any kind of colour vision; dashes, in print as well.
BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#666666"
STYLES: tuple[Style, ...] = (
    ("black", (0, (5, 2))),
    (BLUE, "-"),
    (VERMILLION, (0, (1, 1))),
    (GREEN, (0, (5, 1, 1, 1))),
)


def tidy(axes: Axes) -> None:
    """Leave only what tells something."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
