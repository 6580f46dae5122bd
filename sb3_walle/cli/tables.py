"""Tables of text, and the numbers in them."""

from collections.abc import Sequence

MISSING = "-"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Align text in columns: the first one to the left, numbers to the right.

    :param header: a title for each column
    :param rows: the cells, as many in a row as there are titles
    :return: the lines
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        return "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def format_ratio(value: float | None, base: float | None) -> str:
    """
    :param value: a number; None if it is not known
    :param base: the number to compare it with; None if it is not known
    :return: how many times the base it is, with two decimals
    """
    return MISSING if value is None or not base else f"{value / base:.2f}x"
