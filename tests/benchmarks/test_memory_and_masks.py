"""The benchmarks of LSTM policies and action masks: who takes part, on what, and that the report can be read."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import memory_returns
from benchmarks.memory_and_masks import BARS, TASKS, Settings, contenders, report
from benchmarks.memory_returns import TASKS as TASKS_OF_RETURNS
from benchmarks.memory_returns import MemoryReturns
from benchmarks.returns.comparison import ReturnsOutcome
from benchmarks.speed.measurements import Medians
from sb3_walle.cli.arguments import run_command_line


def test_report_compares_with_the_better_vec_env() -> None:
    found = [
        (quantity, name, 1000.0 * (1 + number))
        for quantity in BARS
        for task in TASKS.values()
        for number, name in enumerate(contenders(task, Settings()))
    ]
    text = report(Medians(found))
    # Theirs are 1,000 and 2,000, ours 3,000 and 4,000.
    assert text.count("0.50x") == text.count("1.00x") == text.count("1.50x") == text.count("2.00x") == 4
    assert text.count("bar of ours: 2.5x") == text.count("bar of ours: 1.0x") == 2


@pytest.mark.parametrize(("name", "velocities", "limit"), [("cartpole", [1, 3], 500), ("pendulum", [2], 200)])
def test_tasks_show_no_velocities_and_have_the_usual_time_limit(name: str, velocities: list[int], limit: int) -> None:
    env = gym.make(TASKS_OF_RETURNS[name].env_id)
    observation, _ = env.reset(seed=0)
    led_to = env.step(env.action_space.sample())[0]
    for shown in (observation, led_to):
        np.testing.assert_array_equal(np.flatnonzero(shown == 0), velocities)
    assert env.spec is not None and env.spec.max_episode_steps == limit


@pytest.mark.parametrize(("name", "n_envs", "shape"), [("cartpole", 8, "2 x 4"), ("pendulum", 4, "2 x 2")])
def test_returns_are_of_the_same_policy_and_arguments(
    name: str, n_envs: int, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[MemoryReturns] = []

    def compare(settings: MemoryReturns, out: Path | None) -> ReturnsOutcome:
        asked.append(settings)
        return ReturnsOutcome(Path("runs"), "the report", False)

    monkeypatch.setattr(memory_returns, "compare_returns", compare)
    assert run_command_line(memory_returns.build_parser(), [name, "--modes", "pipelined"]) == 0
    theirs, *ours = asked[0].trainees()
    assert theirs.name == f"RecurrentPPO, DummyVecEnv({n_envs})"
    assert [trainee.name for trainee in ours] == [f"AsyncRecurrentPPO, {shape}, pipelined"]
    assert ours[0].arguments == {**theirs.arguments, "info_keys": ()}
    assert theirs.arguments["gamma"] == theirs.arguments.get("normalize", theirs.arguments)["gamma"]
    json.dumps(asked[0].describe())
