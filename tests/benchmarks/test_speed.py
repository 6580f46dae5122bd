"""The benchmark of speed: that it measures what it says, for all contenders, and that its report can be read."""

import csv
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stable_baselines3 import PPO

from benchmarks.contenders import AsyncContender
from benchmarks.machine import Machine
from benchmarks.speed import __main__ as command
from benchmarks.speed import core_time, off_policy_speed, start_up, update_sizes
from benchmarks.speed.busy_processes import beside_busy_processes
from benchmarks.speed.core_time import ARITHMETIC, IDLE, Programs, core_time_table, measure_core_time
from benchmarks.speed.gradient_step import MILLISECONDS
from benchmarks.speed.iteration_profile import PHASES, REST
from benchmarks.speed.measurements import Found, Measurement, Medians, medians_of, write_measurements
from benchmarks.speed.off_policy_speed import OffPolicySpeed
from benchmarks.speed.parts import OFF_POLICY_PARTS, PPO_PARTS
from benchmarks.speed.physical_limit import measure_physical_limit
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.speed.run_parts import format_report, measure_parts
from benchmarks.speed.sampler_step import measure_sampler_step
from benchmarks.speed.start_up import descendants, measure_starts, proportional_set_size
from benchmarks.speed.throughput import COLLECTION, LIMIT, measure_training, throughput_tables
from benchmarks.speed.update_sizes import NETS, algorithm_with_samples, measure_update_size
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.arguments import UsageError, run_command_line
from sb3_walle.cli.throughput import measure
from sb3_walle.updates.ppo_update import PPOUpdate

PPO_SETTINGS = PPOSpeed(
    "CartPole-v1",
    n_samplers=2,
    envs_per_sampler=1,
    samples_per_iteration=64,
    n_epochs=1,
    batch_size=32,
    # Compiling takes longer than all else together.
    learner="eager",
    iterations=1,
    repeats=1,
    limit_seconds=0.1,
)
WITHOUT_SUBPROC = replace(PPO_SETTINGS, skip_subproc=True)
OFF_POLICY_SETTINGS = OffPolicySpeed(
    "Pendulum-v1",
    n_samplers=2,
    repeats=1,
    learner="eager",
    skip_subproc=True,
    limit_seconds=0.1,
    algorithm="td3",
    n_steps=8,
    warm_up=8,
    arguments={"policy_kwargs": {"net_arch": [4]}, "batch_size": 4},
)
# The first needs a compiler, the second fresh processes, and the others have tests of their own.
QUICK_PPO_PARTS = {name: PPO_PARTS[name] for name in ("collection", "update", "end-to-end", "busy", "iteration")}
MACHINE = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")


def names_of(settings: PPOSpeed | OffPolicySpeed) -> list[str]:
    return [trainee.name for trainee in settings.trainees()]


@pytest.fixture(scope="module")
def measurements() -> list[Measurement]:
    return measure_parts(WITHOUT_SUBPROC, QUICK_PPO_PARTS)


def test_every_contender_is_measured(measurements: list[Measurement]) -> None:
    assert names_of(PPO_SETTINGS) == ["AsyncPPO, 2 x 1", "PPO, DummyVecEnv(2)", "PPO, SubprocVecEnv(2)"]
    names = names_of(WITHOUT_SUBPROC)
    for part in ("collection", "end-to-end", "busy"):
        assert list(medians_of(measurements, part).of("steps/s")) == names
    assert medians_of(measurements, "update").contenders == names
    assert all(each.value >= 0 for each in measurements)


def test_what_the_cores_do_adds_up_to_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def noted(*args: Any) -> float:
        rates.append(measure(*args))
        return rates[-1]

    monkeypatch.setattr(core_time, "measure", noted)
    # An eager update has no program.
    monkeypatch.setattr(Programs, "cpu_seconds", lambda self: 1.024e-3)
    medians = Medians(measure_core_time(replace(PPO_SETTINGS, samples_per_iteration=1024)))
    totals = [sum(medians.of(part)[name] for part in medians.quantities) for name in medians.contenders]
    assert totals == pytest.approx([1e6 * available_cpus() / rate for rate in rates])
    assert medians.get(ARITHMETIC, "AsyncPPO, 2 x 1") == pytest.approx(1.0)
    # Both the samplers and the learner were found.
    assert all(0 < medians.of(IDLE)[name] < total for name, total in zip(medians.contenders, totals, strict=True))
    assert core_time_table(medians).splitlines()[-1].startswith("physics and")


def test_every_part_of_an_iteration_is_found(measurements: list[Measurement]) -> None:
    medians = medians_of(measurements, "iteration")
    assert medians.quantities == [*PHASES, REST]
    # A function that nothing calls any more would take no time at all.
    assert [each.quantity for each in measurements if each.part == "iteration" and not each.value] == []


def test_report_names_every_contender(measurements: list[Measurement]) -> None:
    report = format_report(WITHOUT_SUBPROC, QUICK_PPO_PARTS, measurements, MACHINE)
    for name in names_of(WITHOUT_SUBPROC):
        assert name in report
    assert "CartPole-v1" in report and "Abacus" in report
    assert max(map(len, report.splitlines())) <= 120


def test_csv_has_every_measurement(measurements: list[Measurement], tmp_path: Path) -> None:
    write_measurements(measurements, tmp_path / "speed.csv")
    with (tmp_path / "speed.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [each.value for each in measurements]
    assert {row["part"] for row in rows} == set(QUICK_PPO_PARTS)


def test_sbx_trains_beside_sb3_and_does_not_count_as_sb3s(monkeypatch: pytest.MonkeyPatch) -> None:
    # SBX is no dependency: a class with SB3's interface takes its place.
    monkeypatch.setitem(sys.modules, "sbx", SimpleNamespace(PPO=PPO))
    rates = [rate for _, _, rate in measure_training(replace(WITHOUT_SUBPROC, sbx=True))]
    names = [*names_of(WITHOUT_SUBPROC), "SBX PPO, DummyVecEnv(2)"]
    assert len(rates) == len(names) and min(rates) > 0
    table = throughput_tables(Medians(("steps/s", name, rate) for name, rate in zip(names, (40, 10, 20), strict=True)))
    *_, ours, sb3s, sbx = table.splitlines()
    assert ours.split()[-2:] == ["4.00x", "-"] and sb3s.split()[-2] == "1.00x" and sbx.split()[-2] == "2.00x"


class InlineContender(AsyncContender):
    """Starts no processes."""

    def create(self, *args: Any, **kwargs: Any) -> Any:
        return super().create(*args, **kwargs, backend="inline")


def test_off_policy_algorithms_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_policy_speed, "AsyncContender", InlineContender)
    measurements = measure_parts(OFF_POLICY_SETTINGS, OFF_POLICY_PARTS)
    names = names_of(OFF_POLICY_SETTINGS)
    for part, quantities in (
        ("collection", ["steps/s"]),
        ("end-to-end", ["gradient_steps=1, steps/s", "gradient_steps=-1, steps/s"]),
        ("slow", ["gradient_steps=1, steps/s", "gradient_steps=-1, steps/s"]),
    ):
        for quantity in quantities:
            assert list(medians_of(measurements, part).of(quantity)) == names
    assert list(medians_of(measurements, "update").of(MILLISECONDS)) == ["SB3", "ours"]
    # Eager updates have no program, and what is left of a very short measurement may be below 0.
    assert all(each.value > 0 for each in measurements if each.part != "cores")
    report = format_report(OFF_POLICY_SETTINGS, OFF_POLICY_PARTS, measurements, MACHINE)
    assert all(name in report for name in names) and "1.00x" in report
    assert max(map(len, report.splitlines())) <= 120
    # SB3 adds to the dictionary that it gets, and not to this one.
    assert "SB3's hyperparameters, but policy_kwargs={'net_arch': [4]}, batch_size=4" in report


def test_one_sampler_a_cpu_takes_part_where_it_has_as_many_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_cpus, shapes in (
        (2, ["10 x 1", "2 x 5"]),
        (8, ["10 x 1", "5 x 2"]),
        (1, ["10 x 1", "1 x 10"]),
        (64, ["10 x 1"]),
    ):
        monkeypatch.setattr(off_policy_speed, "available_cpus", lambda n_cpus=n_cpus: n_cpus)
        names = names_of(replace(OFF_POLICY_SETTINGS, n_samplers=10))
        assert names[:-1] == [f"AsyncTD3, {shape}, {mode}" for shape in shapes for mode in ("pipelined", "free")]


@pytest.mark.parametrize(
    ("algorithm", "env", "allowed"), [("sac", "CartPole-v1", "Box"), ("dqn", "Pendulum-v1", "Disc")]
)
def test_environments_that_do_not_fit_are_refused(algorithm: str, env: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"only supports .*{allowed}"):
        measure_parts(replace(OFF_POLICY_SETTINGS, algorithm=algorithm, env_id=env), {})


def test_environment_is_a_part_of_a_samplers_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.sampler_step.N_STEPS", 64)
    total, environment = measure_sampler_step("CartPole-v1", n_envs=2)
    assert 0 < environment < total


def test_others_compute_for_as_long_as_something_is_measured_beside_them() -> None:
    before = descendants(os.getpid())
    with beside_busy_processes(2):
        others = descendants(os.getpid()) - before
        assert len(others) == 2 and os.getsid(0) not in {os.getsid(pid) for pid in others}
    assert descendants(os.getpid()) == before


class EagerUpdater:
    """In the place of the compiled update, which takes long to compile."""

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
    assert all(microseconds > 0 for microseconds in measure_update_size(NETS["64x64"], 32))


@pytest.mark.parametrize("name", NETS)
def test_samples_for_updates_are_what_the_policy_might_have_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_sizes, "SAMPLES", 64)
    model = algorithm_with_samples(NETS[name], batch_size=32)
    model.train()
    # The policy's own probabilities: at first, its ratio to itself is 1.
    assert model.logger.name_to_value["train/approx_kl"] < 0.1
    assert model.logger.name_to_value["train/value_loss"] > 0


def report_of(part: str, *found: Found) -> list[str]:
    """The lines of a report of known numbers."""
    measurements = [Measurement(part, quantity, name, 1, value) for quantity, name, value in found]
    return format_report(PPO_SETTINGS, {part: PPO_PARTS[part]}, measurements, MACHINE).splitlines()


def test_table_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_sizes, "measure_update_size", lambda net, batch_size: (1500.0, 150.0))
    lines = report_of("sizes", *update_sizes.measure_update_sizes(PPO_SETTINGS))
    assert [line.split()[:4] for line in lines if "10.00x" in line] == [
        [str(batch_size), "1,500", "150", "10.00x"] for batch_size in update_sizes.BATCH_SIZES
    ]
    assert max(map(len, lines)) <= 120


def test_ratios_and_shares() -> None:
    rates = {"AsyncPPO, 2 x 1": 4000.0, "PPO, DummyVecEnv(2)": 1600.0, "PPO, SubprocVecEnv(2)": 500.0}
    # Medians: neither the first nor the mean.
    limits = [(LIMIT, "mj_step", value) for value in (1.0, 8e3, 9e9)]
    lines = report_of("collection", *limits, *((COLLECTION, name, rate) for name, rate in rates.items()))
    (line,) = [line for line in lines if line.startswith("AsyncPPO, 2 x 1")]
    assert line.split()[-4:] == ["4,000", "2.50x", "8.00x", "50%"]


def test_table_of_updates() -> None:
    names = ("AsyncPPO, 2 x 1", "PPO, DummyVecEnv(2)")
    alone = [("alone, us/minibatch", name, value) for name, value in zip(names, (150.0, 1500.0), strict=True)]
    lines = report_of("update", *alone, ("while samplers collect, us/minibatch", names[0], 200.0))
    assert [line.split()[-3:] for line in lines[-2:]] == [["150", "10.00x", "200"], ["1,500", "1.00x", "-"]]


def test_starts_of_all_contenders_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_no_process(name: str, target: Callable[..., None], *arguments: Any) -> Any:
        return (1.0, 2_000_000) if target is start_up.start_in_process else 3.0

    monkeypatch.setattr(start_up, "in_fresh_process", in_no_process)
    found = list(measure_starts(PPO_SETTINGS))
    names = {quantity: [name for each, name, _ in found if each == quantity] for quantity, _, _ in found}
    ours, dummy, subproc = names_of(PPO_SETTINGS)
    assert names[start_up.START_UP] == names[start_up.MEMORY] == [ours, subproc]
    assert names[start_up.FIRST_UPDATE] == [f"{ours}, first run", ours, dummy, subproc]
    lines = report_of("start", *found)
    assert next(line.split()[-4:] for line in lines if line.startswith(ours)) == ["1.00", "1.00x", "2", "1.00x"]


@needs_proc
def test_starting_takes_time_and_memory() -> None:
    ours = PPO_SETTINGS.trainees()[0]
    seconds, memory = start_up.in_fresh_process("it", start_up.start_in_process, ours, "CartPole-v1")
    assert seconds > 0 and 1e6 < memory < 1e10


def test_first_update_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(name: str, target: Callable[..., None], *arguments: Any) -> Any:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        with receiver, sender:
            target(*arguments, sender)
            return receiver.recv()

    monkeypatch.setattr(start_up, "in_fresh_process", in_this_process)
    assert start_up.measure_first_update(PPO_SETTINGS.trainees()[0], "CartPole-v1") > 0


@pytest.mark.parametrize(("env_id", "what"), [("InvertedPendulum-v4", "mj_step"), ("CartPole-v1", "env.step()")])
def test_physical_limit(env_id: str, what: str) -> None:
    limit = measure_physical_limit(env_id, n_processes=2, seconds=0.1)
    assert limit.samples_per_second > 0
    assert limit.what == f"{what} alone in 2 processes"


@needs_proc
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


# The command


def test_command_asks_for_what_the_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run_parts(*arguments: Any) -> tuple[str, list[Measurement]]:
        asked.append(arguments)
        return "the report", [Measurement("collection", "steps/s", "PPO, DummyVecEnv(3)", 1, 123.0)]

    monkeypatch.setattr(command, "run_parts", run_parts)
    out = tmp_path / "speed.csv"
    options = ["CartPole-v1", "--n-samplers", "3", "--skip-subproc", "--net-arch", "8", "--out", str(out)]
    assert run_command_line(command.build_parser(), options) == 0
    assert "the report" in capsys.readouterr().out and "123.0" in out.read_text()
    off_policy_options = "--algo sac --parts update slow --n-samplers 3 --net-arch 64 32"
    assert run_command_line(command.build_parser(), ["Pendulum-v1", *off_policy_options.split()]) == 0
    (ppo, ppo_parts), (sac, sac_parts) = asked
    network = {"policy_kwargs": {"net_arch": [8]}}
    assert ppo == PPOSpeed("CartPole-v1", n_samplers=3, skip_subproc=True, policy_arguments=network)
    assert ppo_parts == PPO_PARTS
    assert all(trainee.arguments["policy_kwargs"] == {"net_arch": [8]} for trainee in ppo.trainees())
    assert sac == OffPolicySpeed(
        "Pendulum-v1", n_samplers=3, algorithm="sac", arguments={"policy_kwargs": {"net_arch": [64, 32]}}
    )
    assert list(sac_parts) == ["update", "slow"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("CartPole-v1 --samples-per-iteration 10", "too few samples"),
        ("Pendulum-v1 --algo ppo --parts slow", "'slow' is not measured of ppo"),
        ("Pendulum-v1 --algo sac --parts iteration", "'iteration' is not measured of sac"),
        ("NoSuchEnv-v0", "NoSuchEnv"),
        ("CartPole-v1 --sbx", "pip install sbx-rl"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(command.build_parser(), options.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("python -m benchmarks.speed: error: ")
