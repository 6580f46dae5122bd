"""The benchmark: that it measures what it says, for everyone, and that its report can be read."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sb3_walle.cli import main
from sb3_walle.experiments.benchmark import results as quantities
from sb3_walle.experiments.benchmark import run, startup, update_sizes
from sb3_walle.experiments.benchmark.busy import beside_busy_processes
from sb3_walle.experiments.benchmark.iteration import PHASES, REST
from sb3_walle.experiments.benchmark.physical_limit import measure_physical_limit
from sb3_walle.experiments.benchmark.report import format_report, format_table, write_csv
from sb3_walle.experiments.benchmark.results import BenchmarkResults, Measurement
from sb3_walle.experiments.benchmark.run import run_benchmark
from sb3_walle.experiments.benchmark.settings import PARTS, BenchmarkSettings
from sb3_walle.experiments.benchmark.startup import StartUp, descendants, proportional_set_size
from sb3_walle.experiments.benchmark.update_sizes import NETS, algorithm_with_samples, measure_update_size
from sb3_walle.experiments.contenders import AsyncContender, VecEnvContender
from sb3_walle.experiments.machine import Machine
from sb3_walle.updates.ppo_update import PPOUpdate

TINY = BenchmarkSettings(
    "CartPole-v1",
    n_samplers=2,
    envs_per_sampler=1,
    samples_per_iteration=64,
    n_epochs=1,
    batch_size=32,
    # Compiling takes longer than all else together.
    learner="eager",
    # The first needs a compiler, the last a fresh process for each contender.
    parts=tuple(part for part in PARTS if part not in ("sizes", "start")),
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
    for quantity in (quantities.COLLECTION, quantities.END_TO_END, quantities.BESIDE_OTHERS):
        for name in results.async_contenders + results.vec_env_contenders:
            assert results.median(quantity, name) is not None, f"{quantity} of {name}"
    assert all(each.value >= 0 for each in results.measurements)


def test_every_part_of_an_iteration_is_found(results: BenchmarkResults) -> None:
    (name, *_) = results.async_contenders
    parts = {phase: results.median(quantities.iteration_part(phase), name) for phase in (*PHASES, REST)}
    # A function that nobody calls any more would take no time at all.
    assert [phase for phase, milliseconds in parts.items() if not milliseconds] == []


def test_environment_is_a_part_of_a_samplers_step(results: BenchmarkResults) -> None:
    total, environment = (
        results.median(quantity, "1 environment") for quantity in (quantities.SAMPLER_STEP, quantities.SAMPLER_ENV_STEP)
    )
    assert total is not None and environment is not None
    assert 0 < environment < total


def test_only_the_parts_that_are_asked_for_are_measured_and_reported() -> None:
    results = run_benchmark(replace(TINY, parts=("sampler",)))
    assert {each.quantity for each in results.measurements} == {quantities.SAMPLER_STEP, quantities.SAMPLER_ENV_STEP}
    report = format_report(results)
    assert "sampler's step" in report
    assert "end to end" not in report


def test_others_compute_for_as_long_as_something_is_measured_beside_them() -> None:
    before = descendants(os.getpid())
    with beside_busy_processes(2):
        others = descendants(os.getpid()) - before
        assert len(others) == 2 and os.getsid(0) not in {os.getsid(pid) for pid in others}
    assert descendants(os.getpid()) == before


class EagerUpdater:
    """In the place of the compiled update, for which nobody wants to wait here."""

    def __init__(self, update: PPOUpdate, choice: str) -> None:
        self.algorithm = update.algorithm
        assert choice == "compiled"

    def require(self) -> None:
        pass

    def train(self, number: int, eagerly: Callable[[], None]) -> None:
        self.algorithm.train()


def test_updates_of_several_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_sizes, "Updater", EagerUpdater)
    monkeypatch.setattr(update_sizes, "SAMPLES", 64)
    times = measure_update_size(NETS["64x64"], 32, repeats=2)
    assert times.eager > 0 and times.compiled > 0


@pytest.mark.parametrize("name", NETS)
def test_samples_for_updates_are_what_the_policy_might_have_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_sizes, "SAMPLES", 64)
    model = algorithm_with_samples(NETS[name], batch_size=32)
    model.train()
    # The policy's own probabilities: at first, its ratio to itself is 1.
    assert model.logger.name_to_value["train/approx_kl"] < 0.1
    assert model.logger.name_to_value["train/value_loss"] > 0


def test_table_of_sizes() -> None:
    batch_size, net = update_sizes.BATCH_SIZES[0], next(iter(NETS))
    quantity = quantities.update_of(net, batch_size)
    measurements = (
        Measurement(quantity, quantities.EAGER, 1, 1500.0),
        Measurement(quantity, quantities.COMPILED, 1, 150.0),
    )
    machine = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)
    report = format_report(BenchmarkResults(TINY, machine, (), (), measurements))
    (line,) = [line for line in report.splitlines() if "10.00x" in line]
    assert line.split()[:4] == [str(batch_size), "1,500", "150", "10.00x"]
    assert max(map(len, report.splitlines())) <= 120


def test_starts_of_all_contenders_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_no_process(name: str, target: Callable[..., None], *arguments: Any) -> Any:
        return StartUp(1.0, 2_000_000) if target is startup.start_in_process else 3.0

    monkeypatch.setattr(startup, "in_fresh_process", in_no_process)
    results = run_benchmark(replace(TINY, parts=("start",)))
    names = {
        quantity: {each.contender for each in results.measurements if each.quantity == quantity}
        for quantity in (quantities.START_UP, quantities.MEMORY, quantities.FIRST_UPDATE)
    }
    with_processes = {*results.async_contenders, "PPO, SubprocVecEnv(2)"}
    assert names[quantities.START_UP] == names[quantities.MEMORY] == with_processes
    first_updates = {"AsyncPPO, 2 x 1, first run", "AsyncPPO, 2 x 1", *results.vec_env_contenders}
    assert names[quantities.FIRST_UPDATE] == first_updates


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_starting_takes_time_and_memory() -> None:
    start_up = startup.measure_start_up(VecEnvContender("SubprocVecEnv", 2), TINY)
    assert start_up.seconds > 0 and start_up.memory_bytes is not None
    assert 1e6 < start_up.memory_bytes < 1e10


def test_first_update_takes_time() -> None:
    assert startup.measure_first_update(AsyncContender(2, 1, "eager"), TINY) > 0


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
    measurements = [Measurement(quantities.COLLECTION, name, 1, value) for name, value in values.items()]
    # Medians: neither the first nor the mean.
    measurements += [
        Measurement(quantities.PHYSICAL_LIMIT, "limit", i, value) for i, value in enumerate((1, 8e3, 9e9), 1)
    ]
    machine = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)
    contenders = tuple(values)
    report = format_report(BenchmarkResults(TINY, machine, contenders[:1], contenders[1:], tuple(measurements)))
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
        measurement = Measurement(quantities.COLLECTION, "PPO, DummyVecEnv(3)", 1, 123.0)
        return BenchmarkResults(settings, machine, (), ("PPO, DummyVecEnv(3)",), (measurement,))

    monkeypatch.setattr(run, "run_benchmark", measure)
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
