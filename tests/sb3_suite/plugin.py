"""
A pytest plugin that has SB3's own tests train the asynchronous algorithms.

``make sb3-tests SB3_SOURCE=path`` runs them. Before pytest imports a test module, the plugin replaces ``PPO``, ``A2C``,
``SAC``, ``TD3``, ``DDPG`` and ``DQN`` in ``stable_baselines3`` by :class:`~sb3_walle.AsyncPPO` and so on, with one
sampler where a test names one environment.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import stable_baselines3
from sb3_suite.differences import DIFFERENCES, LOOK_AT_ENV_OBJECTS, MAY_FAIL
from stable_baselines3.common.vec_env import VecEnv

import sb3_walle
from sb3_walle.backends import BACKENDS
from sb3_walle.collection.modes import MODES
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE

NAMES = ("PPO", "A2C", "SAC", "TD3", "DDPG", "DQN")


class Choices:
    """What the swapped algorithms are constructed with, unless a test says otherwise."""

    backend = "process"
    mode: str | None = None
    learner: str | None = None


def swapped(name: str) -> type:
    """
    :param name: name of one of SB3's algorithms
    :return: the asynchronous one, which takes as many environments as SB3's would
    """
    algorithm: Any = getattr(sb3_walle, f"Async{name}")

    class Swapped(algorithm):  # type: ignore[misc]
        def __init__(self, policy: Any, env: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(policy, env, *args, **{**_for_samplers(env), **_for_updates(algorithm), **kwargs})

        @classmethod
        def load(cls, path: Any, env: Any = None, *args: Any, **kwargs: Any) -> Any:
            return super().load(path, env, *args, **{**_for_samplers(env), **kwargs})

    Swapped.__name__ = Swapped.__qualname__ = algorithm.__name__
    return Swapped


def _for_samplers(env: Any) -> dict[str, Any]:
    one_sampler = {} if env is None or isinstance(env, VecEnv) else {"n_samplers": 1}
    return {"backend": Choices.backend, **one_sampler}


def _for_updates(algorithm: Any) -> dict[str, Any]:
    """The mode and the learner that were asked for, where the algorithm has them."""
    choices = {}
    if Choices.mode in algorithm.supported_modes:
        choices["mode"] = Choices.mode
    if Choices.learner is not None and algorithm is not sb3_walle.AsyncA2C:
        choices["learner"] = Choices.learner
    return choices


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sb3_walle")
    group.addoption("--backend", choices=BACKENDS, default="process", help="where samplers live")
    group.addoption("--mode", choices=MODES, help="by default that of each algorithm")
    group.addoption("--learner", choices=("auto", "compiled", "eager"), help="by default that of each algorithm")


def pytest_configure(config: pytest.Config) -> None:
    Choices.mode, Choices.learner = config.getoption("--mode"), config.getoption("--learner")
    for name in NAMES:
        setattr(stable_baselines3, name, swapped(name))


def pytest_report_header(config: pytest.Config) -> str:
    return (
        f"sb3_walle {sb3_walle.__version__} in the place of stable_baselines3 {stable_baselines3.__version__}, "
        f"backend: {config.getoption('--backend')}, mode: {Choices.mode or 'default'}"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for tests, have_to_fail in ((DIFFERENCES, True), (MAY_FAIL, False)):
            for beginning, reason in tests.items():
                if _name(item).startswith(beginning):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=have_to_fail))


def _name(item: pytest.Item) -> str:
    """As in ``test_gae.py::test_gae[PPO]``, wherever pytest was started."""
    return item.path.name + item.nodeid[item.nodeid.index("::") :]


@pytest.fixture(autouse=True)
def _backend(request: pytest.FixtureRequest) -> None:
    looks_at_objects = _name(request.node).startswith(LOOK_AT_ENV_OBJECTS)
    Choices.backend = "inline" if looks_at_objects else request.config.getoption("--backend")


@pytest.fixture(scope="session", autouse=True)
def _own_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what the user has compiled, or leaves anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORY_VARIABLE, str(tmp_path_factory.getbasetemp() / "programs-of-this-run"))
        yield
