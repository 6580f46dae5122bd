"""What holds for every test: usual signals, one thread for torch, programs of its own, no process left behind."""

import gc
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch as th
from hypothesis import settings
from own_network import is_own_network
from process_helpers import Programs
from ray_cluster import RayCluster
from xdist.scheduler import LoadScopeScheduling

from sb3_walle.updates import updater
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE

# The longest files, the longest first: tests of a file stay together, so the one that starts last decides when all end.
LONGEST_FILES = (
    "test_examples.py",
    "test_native_program.py",
    "test_env_sources.py",
    "test_streams.py",
    "test_zoo.py",
    "test_bad_envs.py",
    "test_workers.py",
    "test_same_numbers.py",
    "test_lifecycle_faults.py",
    "test_speed.py",
    "test_failures.py",
    "test_native_build.py",
    "test_returns.py",
    "test_async_eval.py",
    "test_kills.py",
)


CLUSTER = pytest.StashKey[RayCluster]()

# How long an example takes depends on what else the machine does.
settings.register_profile("without a deadline", parent=settings(), deadline=None)
settings.load_profile("without a deadline")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", 'ray: needs a Ray cluster. A test whose parameter "backend" is "ray" has it.')
    # pytest-xdist would begin with the files that have most tests, which are not those that take longest.
    config.option.loadscopereorder = False


class ByFileOrCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of a file run one after the other in one process; so do all that need a Ray cluster, of whichever file."""

    def _split_scope(self, nodeid: str) -> str:
        return "ray" if names_ray(nodeid) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFileOrCluster | None:
    return ByFileOrCluster(config, log) if config.getoption("dist") == "loadgroup" else None


def names_ray(nodeid: str) -> bool:
    """Whether "ray" is a word of a test's name, its file's name or its parameters. The scheduler knows no more."""
    return "ray" in re.split(r"[\W_]", nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: those that need a Ray cluster are one group."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FILES)}
    for item in items:
        if hasattr(item, "callspec") and item.callspec.params.get("backend") == "ray":
            item.add_marker(pytest.mark.ray)
        if needs_ray(item) and not names_ray(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} needs a Ray cluster: its name must have the word 'ray' in it")
    items.sort(key=lambda item: -1 if names_ray(item.nodeid) else ranks.get(item.path.name, len(ranks)))


def needs_ray(item: pytest.Item) -> bool:
    """Whether a test needs a Ray cluster."""
    return item.get_closest_marker("ray") is not None


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The cluster ends after the last test that needs it, and after the fixtures of that."""
    if CLUSTER in item.config.stash and (nextitem is None or not needs_ray(nextitem)):
        item.config.stash[CLUSTER].close()
        del item.config.stash[CLUSTER]


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """A Ray cluster of two nodes, the same for all tests, to which this process is connected, and programs connect."""
    pytest.importorskip("ray")
    if not is_own_network():
        pytest.skip("needs a network of its own: run `make test`")
    stash = request.config.stash
    if CLUSTER not in stash:
        stash[CLUSTER] = RayCluster(n_nodes=2)
    stash[CLUSTER].settle()
    monkeypatch.setenv("RAY_ADDRESS", stash[CLUSTER].address)
    return stash[CLUSTER]


@pytest.fixture(autouse=True)
def _cluster_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    if needs_ray(request.node):
        request.getfixturevalue("cluster")


@pytest.fixture(scope="session", autouse=True)
def _usual_signals() -> None:
    """In the background of a shell, or under nohup, signals are ignored, by all that a test starts, too."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def _single_threaded() -> None:
    """The networks of tests are so small that a second thread only gets in the way of the samplers."""
    th.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what the user has compiled, or leaves anything there. Tests that run in parallel share theirs."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORY_VARIABLE, str(run / "programs-of-this-run"))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(run / "inductor-of-this-run"))
        # A long training in a test is not about compiling.
        patch.setattr(updater, "WORTH_COMPILING", math.inf)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_log_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """SB3 makes a folder for every model without a logger, in the temporary directory unless it is told where."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("logs")))
        yield


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starts functions of test modules as programs of their own."""
    with Programs(tmp_path_factory.mktemp("programs")) as programs:
        yield programs


def child_processes() -> set[int]:
    """Numbers of this process's children, zombies included, but not of those that the standard library keeps."""
    children = {pid for task in Path("/proc/self/task").iterdir() for pid in children_of(task)}
    # A Ray cluster serves several tests, and so does the process that programs are forked from.
    return {
        int(pid)
        for pid in children
        if not re.search(
            r"multiprocessing|process_helpers\.py|/ray/core/src|/ray/(_private|dashboard)/[\w/]+\.py", command_line(pid)
        )
    }


def children_of(task: Path) -> list[str]:
    """Numbers of a thread's children; nothing if it has just ended."""
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:
        return []


def command_line(pid: str) -> str:
    """What a process was started with; nothing for a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


@pytest.fixture(autouse=True)
def _leaves_no_process_behind() -> Iterator[None]:
    before = child_processes()
    yield
    deadline = time.monotonic() + 10
    while child_processes() - before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not child_processes() - before, "the test has left processes behind"
