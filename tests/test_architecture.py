"""Who may know whom: imports never run upwards."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sb3_walle

TORCH_ACTORS = (
    "choice",
    "exploring_actor",
    "masked_numpy_export",
    "masked_torch_actor",
    "numpy_comparison",
    "numpy_export",
    "numpy_exploring_export",
    "numpy_parts",
    "policy_hooks",
    "predictor_choice",
    "random_streams",
    "recurrent_numpy_export",
    "recurrent_torch_actor",
    "torch_actor",
    "torch_policy",
)
ROOT = Path(sb3_walle.__file__).parent
# From the bottom to the top. A room may import from itself and from those below.
ROOMS = (
    "errors",
    "user_warning",
    "termination",
    "sb3_private",
    "saving",
    "transport",
    "realtime",
    "samplers",
    "backends",
    "envs",
    "timeline",
    "collection",
    "callbacks",
    "replay",
    "updates",
    "algorithm",
    "on_policy",
    "off_policy",
    "algorithms",
    "cli",
)


def imports(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in ROOT.rglob("*.py")} - {"__init__"} == set(ROOMS)


def test_imports_never_run_upwards() -> None:
    for path in ROOT.rglob("*.py"):
        room = room_of(path)
        if room == "__init__":
            continue
        for name in imports(path):
            if name.startswith("sb3_walle."):
                imported = name.split(".")[1]
                assert ROOMS.index(imported) <= ROOMS.index(room), f"{path.relative_to(ROOT)} imports {name}"


def test_the_package_does_not_need_what_is_not_installed() -> None:
    for path in ROOT.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"benchmarks", "tests"}, path


def test_samplers_and_transport_know_nothing_of_processes() -> None:
    for room in ("samplers", "transport"):
        for path in (ROOT / room).rglob("*.py"):
            found = {name.split(".")[0] for name in imports(path)}
            assert not found & {"multiprocessing", "subprocess", "socket", "signal"}, path


def test_only_torch_actors_the_choice_of_an_actor_and_vec_env_wrappers_know_torch() -> None:
    knowing = {
        str(path.relative_to(ROOT))
        for room in ("transport", "samplers", "backends")
        for path in (ROOT / room).rglob("*.py")
        if {name.split(".")[0] for name in imports(path)} & {"torch", "stable_baselines3"}
    }
    actors = {f"samplers/actors/{name}.py" for name in TORCH_ACTORS}
    assert knowing == actors | {"samplers/vec_wrappers.py"}


def test_only_the_ray_backend_knows_ray() -> None:
    knowing = {
        path.parent.name for path in ROOT.rglob("*.py") if "ray" in {name.split(".")[0] for name in imports(path)}
    }
    assert knowing == {"ray"}


def test_updates_know_nothing_of_samplers() -> None:
    for path in (ROOT / "updates").rglob("*.py"):
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("sb3_walle.")}
        assert rooms <= {"updates", "replay", "errors", "saving", "sb3_private", "user_warning"}, path


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    # The package itself imports the public names, when they are asked for.
    graph = {name: (imports(path) & modules.keys()) - {"sb3_walle", name} for name, path in modules.items()}
    del graph["sb3_walle"]
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", [name for name in sb3_walle.__all__ if name.startswith("Async")])
def test_an_algorithm_is_made_of_at_most_four_classes_of_ours(name: str) -> None:
    classes = [owner for owner in getattr(sb3_walle, name).__mro__ if owner.__module__.startswith("sb3_walle.")]
    assert len(classes) <= 4
