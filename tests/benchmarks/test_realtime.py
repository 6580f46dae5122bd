"""The benchmark of acting in real time: how its numbers come about from what a plant has seen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.realtime.__main__ import PARTS, build_parser, run_command, task_of
from benchmarks.realtime.control import Controlled, Learning
from benchmarks.realtime.control_part import Bars, control_report
from benchmarks.realtime.control_rows import CONTROL_ROWS, control_row, samples_path, save_samples
from benchmarks.realtime.kills_part import (
    FALLBACK,
    LEARNER,
    Kill,
    fallback_after,
    first_of_others,
    kills_report,
    passed,
)
from benchmarks.realtime.plant_record import Episode, PlantRecord, ReceivedAction, Tick
from benchmarks.realtime.publish_part import delays, mark_of
from benchmarks.realtime.realtime_contenders import (
    ASKED,
    EPISODES,
    FITTING,
    REALTIME,
    Calibration,
    Task,
    contenders,
)
from benchmarks.realtime.realtime_figure import draw_control
from benchmarks.realtime.returns_part import returns_report, when_reached
from benchmarks.realtime.steal import with_little_steal
from tests.cli.test_cli import is_picture

TASK = Task("HalfCheetah-v4", 50, gradient_steps=4)


def action(time: float, value: float = 0.0, client: int = 1, tick: int = 0) -> ReceivedAction:
    return ReceivedAction(time, tick, 1e-3, client, (value,))


def controlled(missed: Sequence[int] = (), returns: Sequence[float] = ()) -> Controlled:
    """100 ticks at 50 Hz."""
    record = PlantRecord(0.02)
    record.ticks = [Tick(0.02 * tick, 1e-4, tick not in missed) for tick in range(100)]
    record.actions = [action(0.02 * tick + 1e-3) for tick in range(100) if tick not in missed]
    record.episodes = [Episode(number + 1.0, 50 * number, each) for number, each in enumerate(returns)]
    return Controlled(record, Learning(100, 380, 3.9), 2.0, 0.0)


def test_gradient_steps_need_the_share_of_a_core_that_is_asked_for() -> None:
    plain, calibration = Task("HalfCheetah-v4", 50, 1), Calibration(2.9, 8.0, 1)
    assert task_of(plain, PARTS["plant"], None, calibration) == Task("HalfCheetah-v4", 50, 4)
    # One in ten periods of 2 ms.
    assert task_of(replace(plain, hz=500), PARTS["plant"], 0.15, calibration) == Task("HalfCheetah-v4", 500, 1, 10)
    assert task_of(replace(plain, hz=500), PARTS["fast"], None, calibration) == Task("HalfCheetah-v4", 500, 1, 4)


def test_schedules_of_sb3_ask_for_what_they_are_called() -> None:
    arguments = {each.name: dict(each.arguments) for each in contenders(TASK, Calibration(2.9, 7.0, 2), 1000)}
    assert arguments[FITTING] == {"train_freq": 1, "gradient_steps": 2}
    assert arguments[ASKED] == {"train_freq": 1, "gradient_steps": 4}
    assert arguments[EPISODES] == {"train_freq": (1, "episode"), "gradient_steps": 4000}
    assert arguments[REALTIME]["gradient_steps"] == 4
    # Where that is the same, there is no need to measure it twice.
    fewer = contenders(replace(TASK, gradient_steps=2), Calibration(2.9, 7.0, 2), 1000)
    assert FITTING not in {each.name for each in fewer}


def test_a_run_is_kept_and_reported(tmp_path: Path) -> None:
    run = controlled(missed=(7, 8), returns=(-900.0, -100.0))
    row = control_row(REALTIME, 0, TASK, run)
    assert (row.missed, row.longest_gap, row.last_return) == (pytest.approx(0.02), 3, -500.0)
    assert row.ratio_of_asked == pytest.approx(0.975)
    assert CONTROL_ROWS.parse(CONTROL_ROWS.cells(row)) == row
    save_samples(run, samples_path(tmp_path, REALTIME, 0))
    draw_control(TASK, {REALTIME: [row]}, tmp_path, tmp_path / "figure.png")
    assert is_picture(tmp_path / "figure.png")
    report = control_report(TASK, Bars(missed=0.001, age_p99=2.0, longest_gap=4, ratio=0.9), {REALTIME: [row]})
    held = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in report.splitlines() if "at " in line}
    assert held == {
        "ticks missed, %": "NO",
        "longest gap, ticks": "yes",
        "action age p99, ms": "yes",
        "replay ratio of what was asked": "yes",
    }


def test_when_a_return_is_reached() -> None:
    returns = np.array([-900.0, -100.0, -300.0, -100.0, -150.0])
    samples = {"returns": returns, "ended": np.arange(1.0, 6.0), "n_ticks": np.arange(1, 6) * 200}
    assert when_reached(samples, -200, 2) == (3.0, 600)
    assert when_reached(samples, -130, 2) == (5.0, 1000)
    assert when_reached(samples, -50, 2) == when_reached(samples, -50, 9) == (np.inf, np.inf)


def test_times_to_a_return_are_compared_with_the_best_schedule(tmp_path: Path) -> None:
    rows = {}
    for name, n_bad in ((REALTIME, 2), (ASKED, 5), (EPISODES, 7)):
        run = controlled(returns=[*[-900.0] * n_bad, -100.0, -100.0])
        save_samples(run, samples_path(tmp_path, name, 0))
        rows[name] = [control_row(name, 0, TASK, run)]
    report = returns_report(tmp_path, rows, threshold=-200, n_episodes=2)
    # 4 s of 7 s.
    assert f"0.57 of the time of {ASKED}, SB3's best schedule: the bar of 0.6 holds" in report


def test_delays_of_policies_that_were_published() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    record = PlantRecord(0.02)
    # Another version takes the place of the second one before it has acted; the last one has not acted yet.
    record.actions = [action(0.5, 2 * mark_of(0)), action(2.5, 2 * mark_of(2)), action(3.1, 2 * mark_of(3))]
    until_tick, until_action = delays(times, record, scale=2.0)
    np.testing.assert_allclose(until_action, [1.5, 0.5, 0.1])
    np.testing.assert_allclose(until_tick, until_action - 1e-3)
    record.actions.append(action(3.2, 1.99))
    with pytest.raises(ValueError, match="of no version"):
        delays(times, record, scale=2.0)


def test_what_follows_a_kill() -> None:
    record = PlantRecord(0.02)
    record.ticks = [Tick(due, 0.0, True) for due in (1.0, 1.02, 1.04)]
    record.actions = [action(0.99, 0.5), action(1.01, 0.4), action(1.03, FALLBACK, tick=2)]
    fallback, n_others = fallback_after(record, killed_at=0.995)
    assert n_others == 0
    # In the second of the ticks that began since.
    assert passed(record, 0.995, fallback) == (pytest.approx(0.035), 2)
    record.actions.append(action(1.06, 0.3, client=2))
    assert fallback_after(record, killed_at=0.995) == (fallback, 1)
    assert fallback_after(record, killed_at=1.05) == (None, 0)
    assert first_of_others(record, client=1) == record.actions[-1]
    good = Kill(LEARNER, 0, 0.03, ticks=2, n_others=0, is_closed=1, n_left=0)
    assert good.holds
    for change in ({"n_others": 1}, {"is_closed": 0}, {"n_left": 1}, {"ticks": 3}):
        assert not replace(good, **change).holds
    assert "1 of 2" in kills_report(TASK, [good, replace(good, number=1, ticks=float("inf"))])


def test_runs_with_steal_are_repeated() -> None:
    steals = iter((0.05, 0.02, 0.03, 0.0))
    assert with_little_steal(lambda: replace(controlled(), steal=next(steals))).steal == 0.02
    assert with_little_steal(lambda: replace(controlled(), steal=next(steals))).steal == 0.0


def test_the_command_measures_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's algorithm, which needs the fewest processes."""
    monkeypatch.setattr("benchmarks.realtime.__main__.calibrated", lambda env_id: Calibration(4.0, 8.0, 1))
    monkeypatch.setattr("benchmarks.realtime.steal.MAX_STEAL", 1.0)
    out = tmp_path / "results"
    argv = [
        "plant",
        "--env",
        "Pendulum-v1",
        "--ticks",
        "60",
        "--repeats",
        "1",
        "--contenders",
        "fits",
        "--out",
        str(out),
    ]
    assert run_command(build_parser().parse_args(argv)) == 0
    assert FITTING in (out / "report.md").read_text()
    assert is_picture(out / "realtime.png")
    rows = (out / "runs.csv").read_text()
    assert run_command(build_parser().parse_args(argv)) == 0
    assert (out / "runs.csv").read_text() == rows
