"""A recorded training is a valid trace, and says what the log says."""

import json
import math
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from toy_envs import RandomWalk, StampedEnv
from training_pairs import ROLLOUT, logged_by, ours

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv, TimelineCallback
from sb3_walle.algorithm.info_needs import wants_all_infos

N_SAMPLERS, N_STEPS = 3, 300
ARGUMENTS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 1, "learner": "eager"}
# Microseconds that rounding can add up to.
ROUNDING = 0.002

KEYS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "ts", "dur", "name", "cat", "args"},
    "s": {"ph", "pid", "tid", "ts", "name", "cat", "id"},
    "f": {"ph", "pid", "tid", "ts", "name", "cat", "id", "bp"},
}
OF_THE_LEARNER = {"rollout", "update", "wait for a chunk"}
OF_A_SAMPLER = {"chunk", "wait for a ticket", "delay"}


class Trace:
    """A trace that was checked: each event has what its kind needs, and the spans of a row are nested."""

    def __init__(self, folder: Path) -> None:
        self.whole = json.loads((folder / "timeline.json").read_text())
        self.events: list[dict[str, Any]] = self.whole["traceEvents"]
        self.rows: dict[int, str] = {}
        self.spans: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in self.events:
            assert event.keys() == KEYS[event["ph"]] and event["pid"] == 1
            times = [event[key] for key in ("ts", "dur") if key in event]
            assert all(math.isfinite(time) and time >= 0 for time in times)
            if event["name"] == "thread_name":
                self.rows[event["tid"]] = event["args"]["name"]
            if event["ph"] == "X":
                assert event["name"] in (OF_THE_LEARNER if event["tid"] == 0 else OF_A_SAMPLER)
                self.spans[event["name"]].append(event)
        assert {event["tid"] for event in self.events} == self.rows.keys()
        for row in self.rows:
            self._check_nesting(row)
        self._check_arrows()

    def _check_nesting(self, row: int) -> None:
        spans = [event for event in self.events if event["ph"] == "X" and event["tid"] == row]
        open_ends: list[float] = []
        for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
            end = span["ts"] + span["dur"]
            while open_ends and open_ends[-1] <= span["ts"] + ROUNDING:
                open_ends.pop()
            assert not open_ends or (row == 0 and end <= open_ends[-1] + ROUNDING)
            open_ends.append(end)

    def _check_arrows(self) -> None:
        begins, ends = ({e["id"]: e for e in self.events if e["ph"] == phase} for phase in ("s", "f"))
        chunk_begins = {(span["tid"], span["ts"]) for span in self.spans["chunk"]}
        assert begins.keys() == ends.keys()
        for number, end in ends.items():
            assert (end["tid"], end["ts"]) in chunk_begins and end["bp"] == "e"
            assert begins[number]["tid"] == 0 and begins[number]["ts"] <= end["ts"]

    def seconds(self, name: str, row: int | None = None, within: dict[str, Any] | None = None) -> float:
        """How long spans of a name take together: all, those of a row, or those that begin within another span."""
        began, ended = (0.0, math.inf) if within is None else (within["ts"], within["ts"] + within["dur"])
        spans = [span for span in self.spans[name] if row in (None, span["tid"]) and began <= span["ts"] < ended]
        return sum(span["dur"] for span in spans) / 1e6


def samplers(delays: list[float]) -> SamplerVecEnv:
    return SamplerVecEnv([partial(StampedEnv, n, max_delay=delay) for n, delay in enumerate(delays)])


def recorded(model: Any, timesteps: int, folder: Path, **arguments: Any) -> tuple[Trace, list[dict[str, Any]]]:
    """The trace of a training, and its log."""
    lines = logged_by(model)
    with model:
        model.learn(timesteps, callback=TimelineCallback(folder, **arguments))
    return Trace(folder), lines


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
@pytest.mark.parametrize("backend", ["process", "inline"])
def test_trace_and_log_agree(mode: str, backend: str, tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=N_SAMPLERS, mode=mode, backend=backend, **ARGUMENTS)
    trace, lines = recorded(model, 5 * N_SAMPLERS * N_STEPS, tmp_path)
    assert list(trace.rows.values()) == ["learner", "sampler 0", "sampler 1", "sampler 2"]
    assert trace.whole["otherData"]["algorithm"] == "AsyncPPO" and trace.whole["otherData"]["mode"] == mode

    rollouts, updates = trace.spans["rollout"], trace.spans["update"]
    assert len(rollouts) == len(updates) == len(lines) == 5
    for line, rollout in zip(lines, rollouts, strict=True):
        waited = trace.seconds("wait for a chunk", within=rollout)
        assert waited == pytest.approx(line["time/wait_seconds"], abs=1e-6)
    for line, update in zip(lines[1:], updates, strict=False):
        assert update["dur"] / 1e6 == pytest.approx(line["time/learn_seconds"], abs=1e-6)
    for update, rollout in zip(updates, rollouts, strict=True):
        assert update["ts"] >= rollout["ts"] + rollout["dur"] - ROUNDING

    if mode != "free":
        busy = [trace.seconds("chunk", row=1 + sampler) for sampler in range(N_SAMPLERS)]
        assert max(busy) <= sum(line["time/collect_seconds"] for line in lines) + 1e-6
        steps = [sum(c["args"]["steps"] for c in trace.spans["chunk"] if c["tid"] == 1 + k) for k in range(N_SAMPLERS)]
        assert steps == [5 * N_STEPS] * N_SAMPLERS
    versions = {chunk["args"]["version"] for chunk in trace.spans["chunk"]}
    assert versions >= set(range(4)) and max(versions) <= 4


def test_the_time_of_a_single_sampler_is_the_logs(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=1, mode="sync", **ARGUMENTS)
    trace, lines = recorded(model, 3 * N_STEPS, tmp_path)
    for line, rollout in zip(lines, trace.spans["rollout"], strict=True):
        busy = trace.seconds("chunk", within=rollout)
        assert busy == pytest.approx(line["time/collect_seconds"], abs=1e-6)
    waits = [(wait["ts"], wait["ts"] + wait["dur"]) for wait in trace.spans["wait for a ticket"]]
    for update in trace.spans["update"]:
        ended = update["ts"] + update["dur"] - ROUNDING
        assert any(wait_began <= update["ts"] and ended <= wait_ended for wait_began, wait_ended in waits)


def test_one_slow_environment_is_what_others_wait_for(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", samplers([0.0, 0.02, 0.0]), mode="sync", **{**ARGUMENTS, "n_steps": 40})
    trace, _ = recorded(model, 3 * 3 * 40, tmp_path)
    for_slow, for_others = (
        sum(wait["dur"] for wait in trace.spans["wait for a chunk"] if (wait["args"]["sampler"] == 1) is is_slow)
        for is_slow in (True, False)
    )
    assert for_slow > 2 * for_others
    for fast in (0, 2):
        assert trace.seconds("wait for a ticket", row=1 + fast) > 2 * trace.seconds("chunk", row=1 + fast)
    assert trace.seconds("chunk", row=2) > 2 * trace.seconds("wait for a ticket", row=2)


def test_off_policy_algorithms_have_a_timeline_too(tmp_path: Path) -> None:
    model = AsyncDQN("MlpPolicy", StampedEnv, n_samplers=2, learning_starts=20, train_freq=4, batch_size=8)
    trace, _ = recorded(model, 200, tmp_path)
    assert len(trace.spans["rollout"]) == 25
    assert len(trace.spans["update"]) == 25 - 2
    assert {span["tid"] for span in trace.spans["chunk"]} == {1, 2}


@pytest.mark.parametrize("max_events", [1, 40])
def test_memory_is_bounded_and_the_file_says_so(max_events: int, tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=2, backend="inline", **ARGUMENTS)
    trace, _ = recorded(model, 6 * 2 * N_STEPS, tmp_path, max_events=max_events)
    kept = sum(len(trace.spans[name]) for name in ("rollout", "update", "chunk"))
    assert 0 < kept <= max_events
    # Two samplers make three chunks of a rollout, each with a ticket.
    n_events = 6 * (2 * 2 * 3 + 2)
    assert trace.whole["otherData"]["kept"] == f"the last {max_events} of {n_events} events (max_events)"
    # The last ones.
    assert trace.spans["update"][-1]["ts"] == max(event.get("ts", 0) for event in trace.events if event["ph"] == "X")


def test_max_events_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_events must be at least 1, got 0"):
        TimelineCallback(max_events=0)


class Watch(BaseCallback):
    """Notes whether anything is recorded, and may fail."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.is_recorded: set[bool] = set()

    def _on_step(self) -> bool:
        experience = self.model._experience
        self.is_recorded.add(experience.timeline is not None or experience.collector.timeline is not None)
        if self.n_calls == self.fails_at:
            raise ZeroDivisionError
        return True


def test_nothing_is_recorded_unless_it_is_wanted(tmp_path: Path) -> None:
    model, timeline = ours("pipelined"), TimelineCallback(tmp_path / "timeline")
    watch = Watch()
    model.learn(2 * ROLLOUT, callback=watch)
    assert watch.is_recorded == {False}
    failing = Watch(fails_at=30)
    with pytest.raises(ZeroDivisionError):
        model.learn(4 * ROLLOUT, callback=[timeline, failing])
    assert failing.is_recorded == {True} and not (tmp_path / "timeline").exists()
    watch = Watch()
    model.learn(2 * ROLLOUT, callback=watch)
    assert watch.is_recorded == {False}
    # What was recorded until the failure is not lost.
    timeline.write()
    assert len(Trace(tmp_path / "timeline").spans["rollout"]) == 2


def test_a_training_that_ends_within_a_rollout(tmp_path: Path) -> None:
    stop = StopTrainingOnMaxEpisodes(3)
    model = ours("sync")
    model.learn(4 * ROLLOUT, callback=[TimelineCallback(tmp_path), stop])
    trace = Trace(tmp_path)
    assert len(trace.spans["rollout"]) == len(trace.spans["update"]) + 1


def test_each_learn_has_a_timeline_of_its_own(tmp_path: Path) -> None:
    model, timeline = ours("pipelined"), TimelineCallback(tmp_path)
    counts = []
    for n_rollouts in (3, 2):
        model.learn(n_rollouts * ROLLOUT, callback=timeline, reset_num_timesteps=False)
        counts.append(len(Trace(tmp_path).spans["rollout"]))
    assert counts == [3, 2]


def test_environments_that_a_callback_sets_are_recorded(tmp_path: Path) -> None:
    class Change(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.num_timesteps == ROLLOUT:
                self.model.set_env(RandomWalk)

    model = ours("pipelined", RandomWalk)
    model.learn(3 * ROLLOUT, callback=[TimelineCallback(tmp_path), Change()])
    trace = Trace(tmp_path)
    assert sum(chunk["args"]["steps"] for chunk in trace.spans["chunk"]) == 3 * ROLLOUT


def test_it_looks_at_no_infos() -> None:
    assert not wants_all_infos(TimelineCallback())


def test_algorithms_of_sb3_are_refused(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16)
    with pytest.raises(TypeError, match="TimelineCallback records algorithms of sb3_walle, and PPO is none"):
        model.learn(16, callback=TimelineCallback(tmp_path))
