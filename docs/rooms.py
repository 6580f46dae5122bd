"""
The facts of docs/architecture.md: how large each room of the package is, and what stands in front of SB3's algorithms.

``python docs/rooms.py`` prints them, ``python docs/rooms.py --write`` puts them into docs/architecture.md.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import sb3_walle

PACKAGE = Path(sb3_walle.__file__).parent
PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- facts: written by docs/rooms.py -->\n", "<!-- end of facts -->\n"


def rooms() -> dict[str, list[Path]]:
    """:return: the files of each folder of the package; those that lie beside the folders are a room together"""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        first, *rest = path.relative_to(PACKAGE).parts
        found.setdefault(f"{first}/" if rest else "(files)", []).append(path)
    return found


def n_code_lines(path: Path) -> int:
    """
    :param path: a Python file
    :return: number of its lines without empty ones, comments and docstrings
    """
    source = path.read_text()
    without_code = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate((line.strip() for line in source.splitlines()), start=1)
    return sum(bool(line) and not line.startswith("#") and number not in without_code for number, line in lines)


def n_classes(path: Path) -> int:
    """
    :param path: a Python file
    :return: number of classes that it defines
    """
    return sum(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(path.read_text())))


def algorithms() -> dict[str, type]:
    """:return: the public algorithms by name"""
    classes = {name: getattr(sb3_walle, name) for name in sb3_walle.__all__}
    return {name: value for name, value in classes.items() if isinstance(value, type) and hasattr(value, "learn")}


def is_ours(cls: type) -> bool:
    """
    :param cls: a class
    :return: whether this package defines it
    """
    return cls.__module__.split(".")[0] == sb3_walle.__name__


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """
    :param header: the names of the columns
    :param rows: the rows
    :return: the lines of a table in Markdown
    """
    header = list(header)
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"


def size_table() -> Iterator[str]:
    """:return: lines and classes of each room"""
    sizes = [
        (
            room,
            len(files),
            sum(len(path.read_text().splitlines()) for path in files),
            sum(map(n_code_lines, files)),
            sum(map(n_classes, files)),
        )
        for room, files in rooms().items()
    ]
    total = ("all", *(sum(size[column] for size in sizes) for column in range(1, 5)))
    rows = [
        (f"`{room}`" if "/" in room else room, *(f"{number:,}" for number in numbers))
        for room, *numbers in (*sizes, total)
    ]
    return table(("room", "files", "lines", "of which code", "classes"), rows)


def mro_table() -> Iterator[str]:
    """:return: which classes Python asks for a method of an algorithm, up to SB3's"""
    rows = []
    for name, cls in algorithms().items():
        ours = [f"`{base.__name__}`" for base in cls.__mro__ if is_ours(base)]
        theirs = [base.__name__ for base in cls.__mro__ if hasattr(base, "train") and not is_ours(base)]
        if theirs:
            rows.append((f"`{name}`", ", ".join(ours), f"SB3's `{theirs[0]}`"))
    return table(("algorithm", "classes of this package, in this order", "then"), rows)


def facts() -> str:
    """:return: both tables, with a title each"""
    return "\n".join(("", *size_table(), "", *mro_table(), "", ""))


def written() -> str:
    """:return: the facts as the page has them"""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(PAGE.read_text().replace(BEGIN + written() + END, BEGIN + facts() + END))
    else:
        print(facts())
