"""What is logged, where and when, and the infos of episodes that it is made of, are SB3's."""

import csv
import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.logger import HumanOutputFormat, Logger, configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_pairs import MODES, N_ENVS, ROLLOUT, SETTINGS, logged_by, ours, sb3

from sb3_walle import AsyncPPO

# What AsyncPPO logs and SB3 does not.
OWN = {
    "time/collect_seconds",
    "time/wait_seconds",
    "time/learn_seconds",
    "async/policy_lag_mean",
    "async/policy_lag_max",
    "async/sampler_steps_per_second",
    "async/queue_fill",
    "async/restarts",
    "async/compiled_update",
    "async/bottleneck",
}
OF_MODES: dict[str, set[str]] = {
    "sync": set(),
    "pipelined": {"async/importance_weight"},
    "free": {"async/importance_weight", "async/stale_steps"},
}
# What is a word, and not in TensorBoard.
WORDS = {"async/bottleneck"}
# What depends on the clock.
MEASURED = {"time/fps", "time/time_elapsed"}
BOTH: dict[str, Any] = {"sb3": sb3, "ours": ours}


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log without what is measured, and without what only one of the two can log."""
    return {key: value for key, value in line.items() if key not in OWN | MEASURED}


def assert_same_lines(logs: list[list[dict[str, Any]]]) -> None:
    """Two logs agree in everything that is comparable, to the last bit."""
    expected, found = ([comparable(line) for line in log] for log in logs)
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for theirs, mine in zip(expected, found, strict=True):
        for key, value in theirs.items():
            same = mine[key] == value or (math.isnan(value) and math.isnan(mine[key]))
            assert same and type(mine[key]) is type(value), f"{key}: {mine[key]!r} and {value!r}"


@pytest.mark.parametrize("stats_window_size", [100, 2])
@pytest.mark.parametrize("log_interval", [1, 3, None])
def test_every_figure_is_sb3s(log_interval: int | None, stats_window_size: int) -> None:
    logs = []
    for make in BOTH.values():
        model = make(stats_window_size=stats_window_size)
        logs.append(logged_by(model))
        model.learn(7 * ROLLOUT, log_interval=log_interval)
        model.learn(3 * ROLLOUT, log_interval=log_interval, reset_num_timesteps=False)
    assert_same_lines(logs)
    assert len(logs[1]) == {1: 10, 3: 3, None: 0}[log_interval]
    for line in logs[1]:
        assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/iterations"} <= line.keys()


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_log_the_same_names_at_the_same_steps(mode: str) -> None:
    logs = []
    for make in (sb3, lambda: ours(mode)):
        model = make()
        logs.append(logged_by(model))
        model.learn(5 * ROLLOUT, log_interval=2)
    own = OWN | OF_MODES[mode]
    for expected, found in zip(*logs, strict=True):
        assert found.keys() == expected.keys() | own
        assert [found[key] for key in ("step", "time/iterations", "time/total_timesteps")] == [
            expected[key] for key in ("step", "time/iterations", "time/total_timesteps")
        ]
    assert "time/learn_seconds" in logs[1][0] and len(logs[1]) == 2


def read_json(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]


def read_csv(folder: Path) -> list[dict[str, Any]]:
    with (folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value and key not in WORDS} for row in rows]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """One dictionary for each scalar, so that all their values and steps are compared."""
    events = EventAccumulator(str(folder)).Reload()
    return [
        {tag: event.value, "step": event.step}
        for tag in sorted(events.Tags()["scalars"])
        if tag not in OWN | MEASURED | OF_MODES["free"]
        for event in events.Scalars(tag)
    ]


def read_table(folder: Path) -> list[dict[str, Any]]:
    """The tables of text, as they are read by people."""
    tables = (folder / "log.txt").read_text().split("\n-")
    lines = [re.findall(r"^\| +(\S+) +\| (\S.*?) +\|$", table, re.MULTILINE) for table in tables]
    names = {key.split("/")[1] for key in OWN | MEASURED}
    return [{name: float(value) for name, value in table if name not in names} for table in lines]


@pytest.mark.parametrize(
    ("output", "read"), [("json", read_json), ("csv", read_csv), ("tensorboard", read_events), ("log", read_table)]
)
def test_every_output_has_what_sb3_writes_to_it(output: str, read: Any, tmp_path: Path) -> None:
    logs = []
    for name, make in BOTH.items():
        model = make()
        model.set_logger(configure(str(tmp_path / name), [output]))
        model.learn(3 * ROLLOUT)
        model.logger.close()
        logs.append(read(tmp_path / name))
    assert_same_lines(logs)
    assert sum(len(line) for line in logs[1]) > 20


def test_tensorboard_gets_our_figures_too(tmp_path: Path) -> None:
    ours("free", tensorboard_log=str(tmp_path)).learn(2 * ROLLOUT).logger.close()
    tags = EventAccumulator(str(tmp_path / "AsyncPPO_1")).Reload().Tags()
    assert set(tags["scalars"]) > OWN - WORDS | OF_MODES["free"] and not tags["tensors"]


@pytest.mark.parametrize(("output", "file"), [("csv", "progress.csv"), ("json", "progress.json"), ("log", "log.txt")])
def test_the_bottleneck_is_a_word(output: str, file: str, tmp_path: Path) -> None:
    model = ours("sync")
    model.set_logger(configure(str(tmp_path), [output]))
    model.learn(2 * ROLLOUT)
    model.logger.close()
    assert len(re.findall("learner|samplers", (tmp_path / file).read_text())) == 2


@pytest.mark.parametrize("mode", MODES)
def test_people_can_tell_all_keys_apart(mode: str) -> None:
    """SB3's tables cut what is longer than 36 characters, and fail where two keys become the same."""
    text = io.StringIO()
    model = ours(mode)
    model.set_logger(Logger(None, [HumanOutputFormat(text)]))
    model.learn(3 * ROLLOUT)
    assert "..." not in text.getvalue()
    shown = re.findall(r"^\| +(\S+) +\|", text.getvalue(), re.MULTILINE)
    assert {key.split("/")[1] for key in OWN | OF_MODES[mode]} <= set(shown)
    assert all(len(line) <= 79 for line in text.getvalue().splitlines())


def test_runs_are_numbered_as_sb3_numbers_them(tmp_path: Path) -> None:
    for name, make in BOTH.items():
        model = make(tensorboard_log=str(tmp_path / name))
        for arguments in ({}, {}, {"reset_num_timesteps": False}, {"tb_log_name": "mine"}, {"tb_log_name": "mine"}):
            model.learn(ROLLOUT, **arguments).logger.close()
    folders = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in BOTH]
    assert folders[0] == ["PPO_1", "PPO_2", "mine_1", "mine_2"]
    assert folders[1] == [name.replace("PPO", "AsyncPPO") for name in folders[0]]
    continued = EventAccumulator(str(tmp_path / "ours" / "AsyncPPO_2")).Reload()
    assert {event.step for event in continued.Scalars("time/fps")} == {ROLLOUT, 2 * ROLLOUT}


def printed_by(make: Any, capsys: pytest.CaptureFixture[str], **settings: Any) -> list[str]:
    """What training with ``verbose=1`` prints: sentences, and the keys of tables."""
    capsys.readouterr()
    make(verbose=1, **settings).learn(2 * ROLLOUT, callback=StopTrainingOnMaxEpisodes(4, verbose=1))
    lines = capsys.readouterr().out.splitlines()
    return [line.split()[1] if line.startswith("|") else line.strip("-") for line in lines]


@pytest.mark.parametrize("with_tensorboard", [False, True])
def test_what_is_printed_is_sb3s_and_how_the_samplers_work(
    with_tensorboard: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / name) if with_tensorboard else None for name in BOTH]
    expected = printed_by(sb3, capsys, tensorboard_log=folders[0])
    found = printed_by(ours, capsys, tensorboard_log=folders[1])
    assert "Collecting with 1 samplers, environments of each: 3, mode: sync, actor: torch" in found
    own = {"async/", *(key.split("/")[1] for key in OWN)}
    as_sb3_says = [line for line in found if line not in own and not line.startswith("Collecting with")]
    renamed = [line.replace("AsyncPPO", "PPO").replace(str(folders[1]), str(folders[0])) for line in as_sb3_says]
    assert renamed == expected and len(expected) > 15


@pytest.mark.parametrize("mode", MODES)
def test_frames_per_second_count_what_sb3_counts(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of this call of ``learn()``, and the time since it began."""

    class Clock(BaseCallback):
        """Advances by a second at every step."""

        now = 10**18

        def _on_step(self) -> bool:
            Clock.now += 10**9
            return True

    logs = []
    for make in (sb3, lambda: ours(mode)):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time_ns", lambda: Clock.now)
            patched.setattr("sb3_walle.algorithm.async_mixin.time_ns", lambda: Clock.now)
            model = make()
            logs.append(logged_by(model))
            model.learn(2 * ROLLOUT, callback=Clock())
            Clock.now += 10**12
            model.learn(2 * ROLLOUT, callback=Clock(), reset_num_timesteps=False)
    figures = [[(line["time/fps"], line["time/time_elapsed"]) for line in log] for log in logs]
    assert figures[0] == figures[1] == [(N_ENVS, 20), (N_ENVS, 40)] * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_logger_of_ones_own_stays(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ours(mode, verbose=1, tensorboard_log=str(tmp_path / "events"))
    logger = configure(str(tmp_path), ["csv"])
    model.set_logger(logger)
    for _ in range(2):
        model.learn(2 * ROLLOUT)
        assert model.logger is logger
    assert len(read_csv(tmp_path)) == 4
    assert not (tmp_path / "events").exists() and "rollout/" not in capsys.readouterr().out


class KeepsEnds(BaseCallback):
    """Keeps the infos that end episodes, and the rewards of all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, int, dict[str, Any]]] = []
        self.rewards: list[np.ndarray] = []
        self.other_keys: set[str] = set()

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"].copy())
        for env, (done, info) in enumerate(zip(self.locals["dones"], self.locals["infos"], strict=True)):
            if done:
                self.ends.append((self.n_calls, env, info))
            else:
                self.other_keys |= info.keys()
        return True


def test_infos_of_episodes_are_sb3s() -> None:
    kept, buffers = [], []
    for make in BOTH.values():
        kept.append(KeepsEnds())
        model: PPO = make()
        model.learn(6 * ROLLOUT, callback=kept[-1])
        episodes = [{key: value for key, value in info.items() if key != "t"} for info in model.ep_info_buffer or ()]
        buffers.append((episodes, list(model.ep_success_buffer or ())))
    assert_same(kept[0].ends, kept[1].ends, "ends")
    assert_same(buffers[0], buffers[1], "buffers")
    assert kept[0].other_keys == kept[1].other_keys == {"position", "TimeLimit.truncated"}
    infos = [info for _, _, info in kept[1].ends]
    assert {info["TimeLimit.truncated"] for info in infos} == {info["is_success"] for info in infos} == {True, False}


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_infos_of_episodes_belong_to_the_steps_that_they_came_with(backend: str) -> None:
    keeps = KeepsEnds()
    model = ours("pipelined", backend=backend)
    log = logged_by(model)
    model.learn(6 * ROLLOUT, callback=keeps)
    model.get_env().close()
    rewards, starts = np.stack(keeps.rewards), np.zeros(N_ENVS, int)
    for n_calls, env, info in keeps.ends:
        episode = rewards[starts[env] : n_calls, env]
        starts[env] = n_calls
        assert info["episode"]["l"] == len(episode)
        assert info["episode"]["r"] == pytest.approx(episode.sum(), abs=1e-4)
    infos = [info for _, _, info in keeps.ends]
    assert log[-1]["rollout/ep_rew_mean"] == pytest.approx(np.mean([info["episode"]["r"] for info in infos]))
    assert log[-1]["rollout/success_rate"] == pytest.approx(np.mean([info["is_success"] for info in infos]))


@pytest.mark.parametrize("mode", MODES)
def test_infos_of_episodes_are_complete(mode: str) -> None:
    keeps = KeepsEnds()
    ours(mode).learn(6 * ROLLOUT, callback=keeps)
    assert len(keeps.ends) > 10
    for _, _, info in keeps.ends:
        assert info.keys() == {"position", "is_success", "TimeLimit.truncated", "episode", "terminal_observation"}
        assert info["position"] == info["terminal_observation"][0]
        assert info["is_success"] == info["TimeLimit.truncated"]


@pytest.mark.parametrize("mode", MODES)
def test_all_episodes_are_logged_although_no_callback_looks_at_infos(mode: str) -> None:
    counter = StopTrainingOnMaxEpisodes(1000)
    model = ours(mode).learn(4 * ROLLOUT, callback=counter)
    assert model.ep_info_buffer is not None and model.ep_success_buffer is not None
    assert len(model.ep_info_buffer) == len(model.ep_success_buffer) == counter.n_episodes > 10


def test_loaded_models_log_as_before(tmp_path: Path) -> None:
    model = ours("pipelined", tensorboard_log=str(tmp_path)).learn(2 * ROLLOUT)
    model.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model", env=model.get_env())
    logged = logged_by(loaded)
    loaded.learn(2 * ROLLOUT, reset_num_timesteps=False)
    assert [line["step"] for line in logged] == [3 * ROLLOUT, 4 * ROLLOUT]
    assert loaded.n_steps == SETTINGS["n_steps"]
    # There was no update before the first line.
    assert OWN - {"time/learn_seconds", "async/compiled_update"} <= logged[0].keys()
