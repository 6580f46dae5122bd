"""The benchmark of clusters: that its report can be read, and what it refuses. It is run by hand."""

import socket
import sys
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks.cluster import __main__ as command
from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.contenders import PROCESS, RAY, REMOTE_STEPS
from benchmarks.cluster.parts import PARTS
from benchmarks.cluster.wide_env import WideEnv
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.parts import Part
from sb3_walle.cli.arguments import run_command_line


def table_of(part: str, *found: Found) -> list[list[str]]:
    """The cells of a part's table of known numbers, without its header."""
    lines = PARTS[part].table(Medians(found)).splitlines()
    return [line.split() for line in lines[2:]]


def test_contenders_are_compared_with_processes() -> None:
    rates = {PROCESS: 20_000.0, RAY: 18_000.0, REMOTE_STEPS: 800.0}
    rows = table_of("collection", *(("steps/s", name, rate) for name, rate in rates.items()))
    assert [row[-2:] for row in rows] == [["20,000", "1.00x"], ["18,000", "0.90x"], ["800.0", "0.04x"]]


def test_each_size_has_a_row() -> None:
    found = [("4 steps a rollout", PROCESS, 2000.0), ("4 steps a rollout", RAY, 500.0)]
    assert table_of("sizes", *found) == [["4", "steps", "a", "rollout", "2,000", "500.0", "0.25x"]]


def test_each_number_of_chunks_has_a_column() -> None:
    found = [
        (when, name, value) for when in ("before", "after") for name, value in (("learner", 1.5), ("host 1", 20.0))
    ]
    assert table_of("growth", *found) == [["learner", "1.50", "1.50"], ["host", "1", "20.0", "20.0"]]


def test_observations_are_as_large_as_they_should_be() -> None:
    env = WideEnv(4096)
    check_env(env, skip_render_check=True)
    assert env.reset()[0].nbytes == 4096


def test_command_measures_the_parts_that_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def measure(settings: ClusterSettings) -> list[Found]:
        asked.append(settings)
        return [("steps/s", PROCESS, 100.0 * len(asked))]

    monkeypatch.setitem(command.PARTS, "training", Part("The title", measure, PARTS["training"].table))
    options = "CartPole-v1 --parts training --n-samplers 3 --repeats 3 --address 10.0.0.1:6379"
    assert run_command_line(command.build_parser(), options.split()) == 0
    assert asked == [ClusterSettings("CartPole-v1", 3, "10.0.0.1:6379")] * 3
    out = capsys.readouterr().out
    assert "The title" in out and "200.0" in out and "Medians of 3" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("CartPole-v1 --parts start growth", "start and growth would start a Ray cluster that others can reach"),
        ("CartPole-v1 --parts training --rllib", 'pip install "ray[rllib]"'),
        ("NoSuchEnv-v0", "NoSuchEnv"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    # As if it was not installed.
    monkeypatch.setitem(sys.modules, "ray.rllib.algorithms.ppo", None)
    assert run_command_line(command.build_parser(), options.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("python -m benchmarks.cluster: error: ")
