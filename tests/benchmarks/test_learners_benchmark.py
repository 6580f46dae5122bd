"""The benchmark of several learners: what it measures beside updates, which need a compiler, and how it shows them."""

from pathlib import Path

import pytest

from benchmarks.learners import reductions, training_rates
from benchmarks.learners.__main__ import TIMES, build_parser, run_updates
from benchmarks.learners.reductions import reduce_by_gloo, reduce_in_shared_memory
from benchmarks.learners.speed_up import updates_table
from benchmarks.learners.training_rates import Case, rates_table
from benchmarks.learners.update_times import UPDATE_TIMES, UpdateTime, contenders
from benchmarks.results_directory import open_results
from benchmarks.run_log import RunLog
from sb3_walle import AsyncPPO
from sb3_walle.cli.tables import format_ratio


def test_reductions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reductions, "N_REPEATS", 3)
    for reduce in (reduce_in_shared_memory, reduce_by_gloo):
        assert 0.1 < reduce(4_000) < 1e6


@pytest.mark.parametrize("n_learners", [[2], [2, 4, 8, 16, 32, 64]], ids=["2 cores", "64 cores"])
def test_results_that_are_there_are_shown_and_not_measured_again(
    n_learners: list[int], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kinds = contenders(n_learners)
    open_results(tmp_path, {"n_learners": n_learners, "rounds": 5}, TIMES)
    log = RunLog(tmp_path / TIMES, UPDATE_TIMES, len(kinds))
    for net in ("64x64", "256x256"):
        for k, n_threads in kinds:
            log.add(UpdateTime(net, 64, k, n_threads, 1000 / k))
    options = ["--nets", "64x64", "256x256", "--batch-sizes", "64", "--n-learners", *map(str, n_learners)]
    assert run_updates(build_parser().parse_args(["updates", *options, "--output", str(tmp_path)])) == 0
    printed = capsys.readouterr().out
    assert updates_table(log.finished_runs()) in printed
    assert "| 256x256, minibatches of 64 |" in printed and format_ratio(n_learners[-1], 1) in printed
    assert (tmp_path / "speed_up.png").stat().st_size > 10_000


def test_training_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(n_learners: int | str) -> AsyncPPO:
        settings = {"n_samplers": 1, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu"}
        return AsyncPPO("MlpPolicy", "CartPole-v1", learner="eager", n_learners=n_learners, **settings)

    monkeypatch.setitem(training_rates.CASES, "tiny", Case(make, (1, "auto"), warm_up=32, n_steps=64))
    *_, row = rates_table(["tiny"], n_rounds=1).splitlines()
    name, _, several, *_ = [cell.strip() for cell in row.strip("|").split("|")]
    assert (name, several) == ("tiny", "auto")
