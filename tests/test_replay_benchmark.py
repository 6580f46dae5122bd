"""The benchmark of off-policy algorithms, with next to nothing to do."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sb3_walle.cli import main
from sb3_walle.experiments.environments import UsageError
from sb3_walle.experiments.replay_benchmark import run
from sb3_walle.experiments.replay_benchmark import settings as settings_module
from sb3_walle.experiments.replay_benchmark.run import COLLECTION, SLOW, UPDATE, end_to_end, run_replay_benchmark
from sb3_walle.experiments.replay_benchmark.settings import ReplaySettings

TINY = ReplaySettings(
    "Pendulum-v1",
    "td3",
    n_samplers=2,
    steps=8,
    warm_up=8,
    repeats=1,
    learner="eager",
    skip_subproc=True,
    arguments={"policy_kwargs": {"net_arch": [4]}, "batch_size": 4},
)


def test_everything_is_measured(tmp_path: Path) -> None:
    settings = TINY
    report = run_replay_benchmark(settings, tmp_path / "all.csv")
    names = [contender.name for contender in settings.contenders()]
    with (tmp_path / "all.csv").open() as file:
        found = [(row["quantity"], row["contender"], float(row["value"])) for row in csv.DictReader(file)]
    of_all = (COLLECTION, end_to_end(1), end_to_end(-1), SLOW)
    assert {(quantity, name) for quantity, name, _ in found} == {
        *((quantity, name) for quantity in of_all for name in names),
        (UPDATE, "SB3"),
        (UPDATE, "ours"),
    }
    assert all(value > 0 for _, _, value in found)
    assert all(name in report for name in names) and "1.00x" in report
    assert max(map(len, report.splitlines())) <= 120
    # Whatever SB3 has done with the dictionary.
    assert "SB3's hyperparameters, but policy_kwargs={'net_arch': [4]}, batch_size=4" in report


def test_one_sampler_a_cpu_takes_part_where_it_has_as_many_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_cpus, shapes in (
        (2, ["10 x 1", "2 x 5"]),
        (8, ["10 x 1", "5 x 2"]),
        (1, ["10 x 1", "1 x 10"]),
        (64, ["10 x 1"]),
    ):
        monkeypatch.setattr(settings_module, "available_cpus", lambda n_cpus=n_cpus: n_cpus)
        names = list(replace(TINY, n_samplers=10).names)
        assert names[:-1] == [f"AsyncTD3, {shape}, {mode}" for shape in shapes for mode in ("pipelined", "free")]


def test_algorithms_with_discrete_actions_are_measured() -> None:
    settings = replace(TINY, algorithm="dqn", env_id="CartPole-v1", parts=("update", "collection"))
    report = run_replay_benchmark(settings)
    assert "AsyncDQN, 2 x 1, free" in report and "DQN, DummyVecEnv(2)" in report


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        ("sac", "CartPole-v1", "SAC is for actions of a Box space"),
        ("dqn", "Pendulum-v1", "DQN is for actions of a Discrete space"),
    ],
)
def test_environments_that_do_not_fit_are_refused(algorithm: str, env: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_replay_benchmark(replace(TINY, algorithm=algorithm, env_id=env))


def test_command_measures_the_parts_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(run, "run_replay_benchmark", lambda settings, out: asked.append(settings) or "the report")
    assert main(["bench", "Pendulum-v1", "--algo", "sac", "--parts", "update", "slow", "--n-samplers", "3"]) == 0
    assert "the report" in capsys.readouterr().out
    (settings,) = asked
    assert (settings.algorithm, settings.parts, settings.n_samplers) == ("sac", ("update", "slow"), 3)


@pytest.mark.parametrize(("algorithm", "part"), [("ppo", "slow"), ("sac", "iteration")])
def test_parts_of_other_algorithms_are_refused(algorithm: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "Pendulum-v1", "--algo", algorithm, "--parts", part]) == 2
    assert f"'{part}' is not measured of {algorithm}" in capsys.readouterr().err
