"""The benchmark: that it measures what it says, for everyone, and that its report can be read."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_walle.cli import main
from sb3_walle.experiments import benchmark
from sb3_walle.experiments.benchmark import BenchmarkResults, BenchmarkSettings, Machine, Measurement, run_benchmark
from sb3_walle.experiments.benchmark_report import format_report, format_table, write_csv
from sb3_walle.experiments.physical_limit import measure_physical_limit
from sb3_walle.experiments.startup import descendants, proportional_set_size

TINY = BenchmarkSettings(
    "CartPole-v1",
    n_samplers=2,
    envs_per_sampler=1,
    samples_per_iteration=64,
    n_epochs=1,
    batch_size=32,
    iterations=1,
    repeats=1,
    limit_seconds=0.1,
)


@pytest.fixture(scope="module")
def results() -> BenchmarkResults:
    return run_benchmark(TINY)


def test_every_contender_is_measured(results: BenchmarkResults) -> None:
    assert results.async_contenders[0] == "AsyncPPO, 2 x 1"
    assert results.vec_env_contenders[:2] == ("PPO, DummyVecEnv(2)", "PPO, SubprocVecEnv(2)")
    for quantity in (benchmark.COLLECTION, benchmark.END_TO_END):
        for name in results.async_contenders + results.vec_env_contenders:
            assert results.median(quantity, name) is not None, f"{quantity} of {name}"
    for name in (*results.async_contenders, "PPO, SubprocVecEnv(2)"):
        assert results.median(benchmark.START_UP, name) is not None, name
    assert all(each.value > 0 for each in results.measurements)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_processes_take_memory(results: BenchmarkResults) -> None:
    for name in (*results.async_contenders, "PPO, SubprocVecEnv(2)"):
        assert results.median(benchmark.MEMORY, name) > 1


def test_report_names_every_contender(results: BenchmarkResults) -> None:
    report = format_report(results)
    for name in (*results.async_contenders, *results.vec_env_contenders, results.limit):
        assert name in report
    assert "CartPole-v1" in report
    assert max(map(len, report.splitlines())) <= 120


def test_csv_has_every_measurement(results: BenchmarkResults, tmp_path: Path) -> None:
    write_csv(results, tmp_path / "bench.csv")
    with (tmp_path / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [each.value for each in results.measurements]


def test_ratios_and_shares() -> None:
    values = {"AsyncPPO, 2 x 1": 4000.0, "PPO, DummyVecEnv(2)": 1600.0, "PPO, SubprocVecEnv(2)": 500.0}
    measurements = [Measurement(benchmark.COLLECTION, name, 1, value) for name, value in values.items()]
    # Medians: neither the first nor the mean.
    measurements += [
        Measurement(benchmark.PHYSICAL_LIMIT, "limit", i, value) for i, value in enumerate((1, 8e3, 9e9), 1)
    ]
    machine = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)
    contenders = tuple(values)
    report = format_report(
        BenchmarkResults(TINY, machine, contenders[:1], contenders[1:], "limit", tuple(measurements))
    )
    (line,) = [line for line in report.splitlines() if line.startswith("AsyncPPO, 2 x 1")]
    assert line.split()[-4:] == ["4,000", "2.50x", "8.00x", "50%"]


def test_table_is_aligned() -> None:
    assert format_table(["", "n"], [["a", "1,000"], ["long name", "7"]]).splitlines() == [
        "               n",
        "---------  -----",
        "a          1,000",
        "long name      7",
    ]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def measure(settings: BenchmarkSettings) -> BenchmarkResults:
        asked.append(settings)
        machine = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)
        measurement = Measurement(benchmark.COLLECTION, "PPO, DummyVecEnv(3)", 1, 123.0)
        return BenchmarkResults(settings, machine, (), ("PPO, DummyVecEnv(3)",), "limit", (measurement,))

    monkeypatch.setattr(benchmark, "run_benchmark", measure)
    out = tmp_path / "bench.csv"
    assert main(["bench", "CartPole-v1", "--n-samplers", "3", "--skip-subproc", "--out", str(out)]) == 0
    assert asked == [BenchmarkSettings("CartPole-v1", n_samplers=3, skip_subproc=True)]
    assert "PPO, DummyVecEnv(3)" in capsys.readouterr().out
    assert "123.0" in out.read_text()


def test_too_few_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "CartPole-v1", "--samples-per-iteration", "10"]) == 2
    assert "too few" in capsys.readouterr().err


@pytest.mark.parametrize(("env_id", "what"), [("InvertedPendulum-v4", "mj_step"), ("CartPole-v1", "env.step()")])
def test_physical_limit(env_id: str, what: str) -> None:
    limit = measure_physical_limit(env_id, n_processes=2, seconds=0.1)
    assert limit.samples_per_second > 0
    assert limit.what == f"{what} alone in 2 processes"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_memory_of_descendants() -> None:
    # A process that starts another one and waits for it.
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        family = descendants(os.getpid())
        assert process.pid in family
        assert len(descendants(process.pid)) == 1
        memory = proportional_set_size({process.pid})
        assert memory is not None and 1e6 < memory < 1e9
        process.stdin.write(b"\n")
    assert descendants(process.pid) == set()
