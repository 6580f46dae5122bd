"""Tables of text, and the numbers in them."""

from collections.abc import Sequence

MISSING = "-"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align text in columns: the first one to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        return "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def format_ratio(value: float | None, base: float | None) -> str:
    """:return: how many times the base a value is, where both are known"""
    return MISSING if value is None or not base else f"{value / base:.2f}x"
