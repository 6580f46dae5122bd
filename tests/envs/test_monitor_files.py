"""Monitor files that samplers write are SB3's: the same names, the same rows, readable by its own tools."""

import csv
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, get_monitor_files, load_results
from stable_baselines3.common.results_plotter import X_EPISODES, X_TIMESTEPS, plot_results, ts2xy
from stable_baselines3.common.vec_env import VecEnv
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv, SamplerWarning

# Without samplers, SB3 would write the files, and much of this would hold without any merit of theirs.
pytestmark = pytest.mark.filterwarnings("error:Training continues as in SB3")

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "seed": 3, "device": "cpu"}
TOTAL = 3 * 64 * 4


class Episodes(BaseCallback):
    """Writes down the episodes of each environment, as the learner is told of them."""

    def __init__(self) -> None:
        super().__init__()
        self.of_env: list[list[dict[str, float]]] = []

    def _on_training_start(self) -> None:
        self.of_env = [[] for _ in range(self.training_env.num_envs)]

    def _on_step(self) -> bool:
        for episodes, info in zip(self.of_env, self.locals["infos"], strict=True):
            if "episode" in info:
                episodes.append(info["episode"])
        return True


def rows(path: Path) -> list[dict[str, float]]:
    """The rows of a monitor file, below its one header."""
    with path.open(newline="") as file:
        assert file.readline().startswith('#{"t_start"')
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def files(directory: Path, n_envs: int = 4) -> list[Path]:
    paths = [directory / f"{index}.monitor.csv" for index in range(n_envs)]
    assert sorted(get_monitor_files(str(directory))) == [str(path) for path in paths]
    return paths


def in_samplers(directory: Path, env: Any = RandomWalk, **kwargs: Any) -> VecEnv:
    return make_vec_env(env, 4, seed=3, monitor_dir=str(directory), vec_env_cls=SamplerVecEnv, **kwargs)


def in_dummy_vec_env(directory: Path, env: Any = RandomWalk, **kwargs: Any) -> VecEnv:
    return make_vec_env(env, 4, seed=3, monitor_dir=str(directory), **kwargs)


WAYS = pytest.mark.parametrize("build", [in_samplers, in_dummy_vec_env])


@WAYS
def test_every_episode_of_every_sampler_is_in_its_file(build: Callable[..., VecEnv], tmp_path: Path) -> None:
    model, episodes = AsyncPPO("MlpPolicy", build(tmp_path), **SETTINGS), Episodes()
    assert isinstance(model.env, SamplerVecEnv) and model.env.backend == "process"
    model.learn(TOTAL, callback=episodes)
    assert [rows(path) for path in files(tmp_path)] == episodes.of_env
    assert all(episodes.of_env)
    model.env.close()
    assert [rows(path) for path in files(tmp_path)] == episodes.of_env


@pytest.mark.parametrize("moved", [False, True])
def test_files_are_those_of_sb3(moved: bool, tmp_path: Path) -> None:
    """Apart from the wall-clock time."""
    columns = {"monitor_kwargs": {"info_keywords": ("stamp",)}}
    PPO("MlpPolicy", in_dummy_vec_env(tmp_path / "sb3", StampedEnv, **columns), **SETTINGS).learn(TOTAL)
    if moved:
        env = in_dummy_vec_env(tmp_path / "ours", StampedEnv, **columns)
        model = AsyncPPO("MlpPolicy", env, n_samplers=1, mode="sync", actor="torch", backend="inline", **SETTINGS)
    else:
        inline = {"vec_env_kwargs": {"envs_per_sampler": 4, "backend": "inline"}}
        env = in_samplers(tmp_path / "ours", StampedEnv, **columns, **inline)
        model = AsyncPPO("MlpPolicy", env, mode="sync", actor="torch", **SETTINGS)
    model.learn(TOTAL)
    expected, found = ([path.read_text() for path in files(tmp_path / name)] for name in ("sb3", "ours"))

    def without_time(text: str) -> list[list[str]]:
        return [[*row[:2], *row[3:]] for row in csv.reader(text.splitlines()[1:])]

    assert [without_time(text) for text in found] == [without_time(text) for text in expected]
    assert without_time(found[0])[0] == ["r", "l", "stamp"]


@pytest.fixture
def _no_window() -> Iterator[None]:
    from matplotlib import pyplot

    backend = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(backend)


@pytest.mark.usefixtures("_no_window")
def test_sb3_s_tools_read_and_plot_them(tmp_path: Path) -> None:
    from matplotlib import pyplot

    episodes = Episodes()
    env = in_samplers(tmp_path, vec_env_kwargs={"backend": "inline", "envs_per_sampler": 2})
    AsyncPPO("MlpPolicy", env, **SETTINGS).learn(TOTAL, callback=episodes)
    in_order = sorted((episode for of_env in episodes.of_env for episode in of_env), key=lambda episode: episode["t"])

    results = load_results(str(tmp_path))
    assert sorted(results.r) == sorted(episode["r"] for episode in in_order)
    steps, returns = ts2xy(results, X_TIMESTEPS)
    assert steps[-1] == sum(episode["l"] for episode in in_order) == np.sum(results.l)
    assert len(returns) == len(in_order)

    plot_results([str(tmp_path)], TOTAL, X_EPISODES, "Random walk")
    (points,) = pyplot.gca().collections
    assert len(points.get_offsets()) == len(in_order)


def test_rows_from_before_the_environments_moved_stay(tmp_path: Path) -> None:
    given = in_dummy_vec_env(tmp_path)
    given.reset()
    for _ in range(50):
        given.step(np.zeros((4, 1)))
    before = [path.read_text() for path in files(tmp_path)]
    assert all(text.count("\n") > 2 for text in before)

    model, episodes = AsyncPPO("MlpPolicy", given, **SETTINGS), Episodes()
    model.learn(TOTAL, callback=episodes)
    model.get_env().close()
    for path, old, new in zip(files(tmp_path), before, episodes.of_env, strict=True):
        assert path.read_text().startswith(old)
        assert rows(path)[old.count("\n") - 2 :] == new


def test_originals_and_samplers_do_not_write_over_each_other(tmp_path: Path) -> None:
    given, episodes = in_dummy_vec_env(tmp_path), Episodes()
    model = AsyncPPO("MlpPolicy", given, backend="inline", **SETTINGS).learn(TOTAL, callback=episodes)
    in_samplers = [rows(path) for path in files(tmp_path)]
    evaluated, _ = evaluate_policy(model, given, n_eval_episodes=8, return_episode_rewards=True)
    in_file = [rows(path) for path in files(tmp_path)]
    assert [new[: len(old)] for old, new in zip(in_samplers, in_file, strict=True)] == episodes.of_env
    after = [row["r"] for old, new in zip(in_samplers, in_file, strict=True) for row in new[len(old) :]]
    assert len(after) >= 8 and set(evaluated) <= set(after)


def test_copies_of_one_environment_write_files_of_their_own(tmp_path: Path) -> None:
    env = Monitor(RandomWalk(), str(tmp_path / "walk"))
    env.reset()
    while not any(env.step(np.zeros(1))[2:4]):
        pass
    before = rows(tmp_path / "walk.monitor.csv")
    assert len(before) == 1
    model, episodes = AsyncPPO("MlpPolicy", env, n_samplers=4, **SETTINGS), Episodes()
    model.learn(TOTAL, callback=episodes)
    model.get_env().close()
    names = ["walk.monitor.csv", *(f"{index}.walk.monitor.csv" for index in range(1, 4))]
    found = [rows(tmp_path / name) for name in names]
    assert found == [before + episodes.of_env[0], *episodes.of_env[1:]]
    assert len(load_results(str(tmp_path))) == sum(map(len, found))


class Walks:
    """
    Builds environments with one and the same monitor file.

    :param override_existing: whether the file replaces one that exists
    """

    def __init__(self, directory: Path, override_existing: bool = True) -> None:
        self.directory, self.override_existing = directory, override_existing

    def __call__(self) -> Monitor:
        return Monitor(RandomWalk(), str(self.directory), override_existing=self.override_existing)


def names_of_own_files(directory: Path) -> list[Path]:
    return [directory / name for name in ("monitor.csv", "1.monitor.csv", "2.monitor.csv", "3.monitor.csv")]


def test_one_file_name_for_all_becomes_one_file_for_each(tmp_path: Path) -> None:
    for envs_per_sampler, backend in ((1, "process"), (2, "inline")):
        # The second run's files take the place of the first one's.
        env = SamplerVecEnv([Walks(tmp_path)] * 4, envs_per_sampler, backend)
        model, episodes = AsyncPPO("MlpPolicy", env, **SETTINGS), Episodes()
        model.learn(TOTAL, callback=episodes)
        env.close()
        paths = names_of_own_files(tmp_path)
        assert sorted(get_monitor_files(str(tmp_path))) == sorted(map(str, paths))
        assert [rows(path) for path in paths] == episodes.of_env


def test_files_that_are_continued_stay_whole(tmp_path: Path) -> None:
    for path in names_of_own_files(tmp_path)[:3]:
        path.write_text('#{"t_start": 0.0, "env_id": "None"}\nr,l,t\n1.0,1,1.0\n')
    model, episodes = (
        AsyncPPO("MlpPolicy", Walks(tmp_path, False), n_samplers=4, backend="inline", **SETTINGS),
        Episodes(),
    )
    model.learn(TOTAL, callback=episodes)
    model.get_env().close()
    before = [{"r": 1.0, "l": 1.0, "t": 1.0}]
    found = [rows(path) for path in names_of_own_files(tmp_path)]
    assert found == [before + of_env for of_env in episodes.of_env[:3]] + [episodes.of_env[3]]


class KilledOnce(RandomWalk):
    """
    Kills its process in its 150th step, unless a file says that this has happened.

    :param sign: the file
    """

    def __init__(self, sign: Path) -> None:
        super().__init__()
        self.sign, self.n_steps = sign, 0

    def step(self, action: np.ndarray) -> Any:
        self.n_steps += 1
        if self.n_steps == 150 and not self.sign.exists():
            self.sign.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def test_a_sampler_that_is_replaced_continues_its_file(tmp_path: Path) -> None:
    """Whether the user has given it a name of its own or not."""
    logs = tmp_path / "logs"

    def build(index: int) -> Callable[[], Monitor]:
        sign = tmp_path / str(index)
        return lambda: Monitor(KilledOnce(sign), str(logs / "own" if index == 2 else logs))

    logs.mkdir()
    env = SamplerVecEnv([build(index) for index in range(3)])
    model, episodes = AsyncPPO("MlpPolicy", env, **SETTINGS), Episodes()
    with pytest.warns(SamplerWarning):
        model.learn(4 * 64 * 3, callback=episodes)
    env.close()
    names = ["monitor.csv", "1.monitor.csv", "own.monitor.csv"]
    for name, of_env in zip(names, episodes.of_env, strict=True):
        found = rows(logs / name)
        # Episodes of a chunk that was lost, and collected anew, are in the file, too.
        assert [row for row in found if row in of_env] == of_env != []
        assert found[0] == of_env[0] and found[-1] == of_env[-1]


def test_an_environment_for_the_learner_leaves_the_samplers_file_alone(tmp_path: Path) -> None:
    env = SamplerVecEnv([Walks(tmp_path)], backend="inline")
    env.reset()
    for _ in range(30):
        env.step(np.zeros((1, 1)))
    before = rows(tmp_path / "monitor.csv")
    env.build_env().close()
    assert rows(tmp_path / "monitor.csv") == before != []
    env.close()
