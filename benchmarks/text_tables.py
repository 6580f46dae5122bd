"""Tables in Markdown, and numbers in tables."""

from collections.abc import Sequence

from sb3_walle.cli.tables import MISSING


def format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Align text in columns that Markdown takes for a table: the first one to the left, numbers to the right.

    :param header: a title a column
    :param rows: the cells, as many a row as there are titles
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        padded = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def format_number(value: float | None, decimals: int = 0) -> str:
    """
    :param value: a number; None if it is not known
    :param decimals: digits after the point
    :return: the number with thousands separated
    """
    return MISSING if value is None else f"{value:,.{decimals}f}"
