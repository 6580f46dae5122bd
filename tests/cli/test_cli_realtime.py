"""``sb3-walle train --mode realtime``: its options, and what it says and draws of the control loop."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import example, given
from hypothesis import strategies as st
from stable_baselines3 import SAC

from sb3_walle.cli import main
from sb3_walle.cli.realtime_picture import draw_realtime
from sb3_walle.cli.realtime_summary import bars, realtime_summary, round_edges
from sb3_walle.cli.train import fallback_action
from sb3_walle.cli.training import as_action
from sb3_walle.realtime.statistics import RealtimeStatistics, TickTimes
from tests.cli.test_cli import is_picture, run_directory


def statistics(ages_ms: list[float], control_hz: float | None = 50.0) -> RealtimeStatistics:
    found = RealtimeStatistics(control_hz)
    for number, age in enumerate(ages_ms):
        # The last step takes three ticks.
        n_ticks = 3 if number == len(ages_ms) - 1 else 1
        found.add(TickTimes(0.02 * n_ticks, 1e-3 * age, n_ticks if control_hz else 0), 0.1, None)
    return found.settle()


def test_summary_says_how_well_the_loop_kept_time() -> None:
    text = realtime_summary(statistics([0.3] * 60 + [0.6] * 30 + [3.0] * 10))
    assert "100 steps at 50 Hz" in text
    assert "1.96% (2 of 102), most from one action to the next: 3" in text
    assert "largest 60 ms" in text and "largest 3 ms" in text
    lines = [line.split() for line in text.splitlines()[-4:]]
    assert [(line[0], line[2], line[-1]) for line in lines] == [
        ("0.2", "0.5", "60.00%"),
        ("0.5", "1", "30.00%"),
        ("1", "2", "0.00%"),
        ("2", "5", "10.00%"),
    ]
    assert len(lines[0][4]) == 2 * len(lines[1][4]) == 24


def test_summary_of_an_environment_that_keeps_time_itself_knows_no_ticks() -> None:
    text = realtime_summary(statistics([0.3] * 10, control_hz=None))
    assert "at the environment's rate" in text and "missed" not in text


@example(100_000.0, 99_999.99999999999)
@given(st.floats(1e-3, 1e5), st.floats(1e-3, 1e5))
def test_round_edges_enclose_what_they_are_for(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    edges = round_edges(low, high)
    assert edges == sorted(edges)
    assert edges[0] <= low < edges[1] and edges[-2] <= high < edges[-1]


@pytest.mark.parametrize("ages_ms", [[], [0.5], [0.3, 0.5, 100.0]])
def test_a_picture_is_drawn_of_any_number_of_steps(ages_ms: list[float], tmp_path: Path) -> None:
    draw_realtime(statistics(ages_ms), "a run", tmp_path / "realtime.png")
    assert is_picture(tmp_path / "realtime.png")
    assert bool(bars(statistics(ages_ms).action_age_ms)) == bool(ages_ms)


@pytest.mark.parametrize(
    ("text", "space", "action"),
    [
        ("-0.5,1", spaces.Box(-1, 1, (2,)), np.array([-0.5, 1], np.float32)),
        ("1,2,3,4", spaces.Box(-9, 9, (2, 2)), np.array([[1, 2], [3, 4]], np.float32)),
        ("1", spaces.Discrete(3), 1),
    ],
)
def test_a_fallback_action_is_one_of_the_environment(text: str, space: spaces.Space, action: Any) -> None:
    numbers = fallback_action(text)
    assert isinstance(numbers, list)
    found = as_action(numbers, space)
    assert space.contains(found)
    np.testing.assert_array_equal(found, action)


def test_other_words_are_no_fallback_action() -> None:
    assert fallback_action("hold") == "hold"
    with pytest.raises(argparse.ArgumentTypeError, match="'stop' is neither hold nor numbers"):
        fallback_action("stop")


def test_train_in_real_time_leaves_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--algo", "sac", "--plain", "--mode", "realtime", "--control-hz", "100", "--fallback-action", "0"]
    options += ["--observe-last-action", "2", "--timesteps", "60", "--learner", "eager", "--run-dir", str(tmp_path)]
    assert main(["train", "Pendulum-v1", *options]) == 0
    directory = run_directory(tmp_path)
    assert is_picture(directory / "realtime.png")
    assert not (directory / "video.mp4").exists()
    output = capsys.readouterr().out
    assert "Real time:" in output and "at 100 Hz" in output and "LastActionsObservation(env, n_actions=2)" in output
    assert json.loads((directory / "settings.json").read_text())["fallback_action"] == [0.0]
    model = SAC.load(directory / "model.zip", device="cpu")
    assert model.observation_space.shape == (5,)
