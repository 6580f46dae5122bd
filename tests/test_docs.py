"""What documents say is so: their code runs, their links lead somewhere, their tables are complete."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from sb3_walle import AsyncOffPolicyMixin, AsyncPPO

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path for path in PAGES if "_build" not in path.parts]

# What stands in a document in front of code that cannot run by itself.
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*$")
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def runnable_code(path: Path) -> str:
    """The code of a page, one block after the other as a reader would enter it, with few steps and samplers."""
    text = path.read_text()
    blocks = [found[1] for found in CODE.finditer(text) if not NOT_RUN.search(text[: found.start()])]
    code = "\n".join(blocks)
    for number, few in (
        (r"(?<=\.learn\()", "1"),
        (r"(?<=n_steps=)(?=\d{3})", "64"),
        (r"(?<=save_freq=)", "20"),
        (r"(?<=n_samplers=)(?=[3-9]|\d\d)", "2"),
    ):
        code = re.sub(rf"{number}\d[\d_]*", few, code)
    return code


def rooms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [path for path in PAGES if runnable_code(path)], ids=name_of)
def test_code_runs_as_it_stands(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if path.name == "extending.md":
        undo_entries(monkeypatch)
    exec(compile(runnable_code(path), name_of(path), "exec"), {"__name__": "documented"})


def undo_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page enters into tables of the package is taken out of them again."""
    from sb3_walle.samplers.actors.numpy_layers import ACTIVATIONS

    monkeypatch.setitem(ACTIVATIONS, "Mish", None)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    for target in LINK.findall(path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_every_argument_is_explained() -> None:
    page = (ROOT / "docs" / "guide" / "arguments.md").read_text()
    arguments = {
        name
        for cls in (*AsyncPPO.__mro__, AsyncOffPolicyMixin)
        if cls.__module__.startswith("sb3_walle.")
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert {"n_samplers", "noise_ladder", "learner"} <= arguments
    assert {name for name in arguments if f"\n| `{name}` |" not in page} == set()


def test_facts_of_the_architecture_are_fresh() -> None:
    """Lines change with every change, rooms and base classes do not."""
    page = rooms()
    told = "run python docs/rooms.py --write"
    assert {line.split("|")[1] for line in page.size_table()} == {
        line.split("|")[1] for line in page.written().split("\n\n")[0].strip().splitlines()
    }, told
    assert "\n".join(page.mro_table()) in page.written(), told
