"""What the cores do for one sample of a training: physics, the update's arithmetic, and everything beside them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch as th

from benchmarks.contenders import AsyncContender, Trainee
from benchmarks.pools import EnvPoolContender, has_envpool, pool_seconds
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.physical_limit import measure_physical_limit
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.speed.sampler_step import measure_sampler_step
from benchmarks.speed.start_up import descendants
from benchmarks.text_tables import format_number
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.tables import format_table
from sb3_walle.cli.throughput import measure
from sb3_walle.updates.global_state import threads_at_most
from sb3_walle.updates.native.program import NativeProgram

PHYSICS, ENVIRONMENT, SAMPLERS = "physics alone", "environment beside it", "sampler beside the environment"
ARITHMETIC, UPDATE, LEARNER = "update's program alone", "update beside its program", "learner beside the update"
IDLE = "idle, or at work for others"
TOTAL, SHARE = "all cores together", "physics and the update's program"
# Calls of a program that are measured, after as many that do not count.
N_CALLS = 2000
PROC = Path("/proc")


@dataclass
class LastCall:
    """Remembers which program was called last, and with what."""

    program: NativeProgram | None = None
    inputs: list[th.Tensor] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        call = NativeProgram.__call__

        def note(program: NativeProgram, inputs: list[th.Tensor]) -> th.Tensor:
            self.program, self.inputs = program, inputs
            return call(program, inputs)

        with mock.patch.object(NativeProgram, "__call__", note):
            yield

    def seconds(self) -> float:
        """:return: what the call takes when it is made again and again"""
        if self.program is None:
            raise RuntimeError("the update was not compiled")
        # As updates of small minibatches do.
        with threads_at_most(1):
            for _ in range(N_CALLS):
                self.program(self.inputs)
            started = time.perf_counter()
            for _ in range(N_CALLS):
                self.program(self.inputs)
            return (time.perf_counter() - started) / N_CALLS


@dataclass
class CPUTime:
    """CPU seconds of a training, from when :meth:`start` is called."""

    learner: float = 0.0
    update: float = 0.0
    samplers: dict[int, float] = field(default_factory=dict)

    def start(self) -> None:
        self.learner, self.update, self.samplers = time.process_time(), 0.0, _cpu_seconds_of_children()

    def stop(self) -> None:
        """Keep what was used since the start."""
        self.learner = time.process_time() - self.learner
        now = _cpu_seconds_of_children()
        self.samplers = {pid: seconds - self.samplers.get(pid, 0.0) for pid, seconds in now.items()}

    def note_updates(self, model: Any) -> None:
        """Have the updates of an algorithm measured."""
        train = model.train

        def timed() -> None:
            before = time.process_time()
            train()
            self.update += time.process_time() - before

        # An instance's attribute comes before its class's method.
        model.train = timed


def measure_core_time(settings: PPOSpeed) -> Iterator[Found]:
    """:return: microseconds of a core for each sample of an iteration, by what they are spent on"""
    n_cpus = available_cpus()
    physics = 1e6 * n_cpus / measure_physical_limit(settings.env_id, n_cpus, settings.limit_seconds).samples_per_second
    for trainee in trainees(settings):
        for part, microseconds in core_time(trainee, settings, physics, n_cpus).items():
            yield part, trainee.name, microseconds


def trainees(settings: PPOSpeed) -> list[Trainee]:
    """:return: as many environments in different numbers of samplers, and in EnvPool's, where that is installed"""
    n_envs, n_cpus = settings.n_samplers, available_cpus()
    shapes = dict.fromkeys((shape, n_envs // shape) for shape in (n_envs, n_cpus) if n_envs % shape == 0)
    contenders: list[AsyncContender] = [AsyncContender(*shape, settings.learner) for shape in shapes]
    if has_envpool():
        contenders += [EnvPoolContender(*shape, settings.learner) for shape in list(shapes)[1:]]
    return [Trainee(each.name, each, "pipelined", settings.arguments(each)) for each in contenders]


def core_time(trainee: Trainee, settings: PPOSpeed, physics: float, n_cpus: int) -> dict[str, float]:
    """
    :param physics: microseconds that the physics of a step takes
    :param n_cpus: number of cores
    :return: microseconds of a core for each sample
    """
    contender = trainee.contender
    assert isinstance(contender, AsyncContender)
    if isinstance(contender, EnvPoolContender):
        environment = 1e6 * pool_seconds(settings.env_id, contender.envs_per_sampler)
    else:
        environment = measure_sampler_step(settings.env_id, contender.envs_per_sampler)[1]
    call, used = LastCall(), CPUTime()
    with call.noted(), trainee.running(settings.env_id) as model:
        used.note_updates(model)
        rate = measure(model, settings.stopwatch(model.n_envs, on_start=used.start))
        used.stop()
        n_samples = settings.iterations * model.n_steps * model.n_envs
    calls_per_sample = settings.n_epochs / settings.batch_size
    total, program = 1e6 * n_cpus / rate, 1e6 * call.seconds() * calls_per_sample
    samplers, update, learner = (
        1e6 * seconds / n_samples for seconds in (sum(used.samplers.values()), used.update, used.learner)
    )
    return {
        PHYSICS: physics,
        ENVIRONMENT: environment - physics,
        SAMPLERS: samplers - environment,
        ARITHMETIC: program,
        UPDATE: update - program,
        LEARNER: learner - update,
        IDLE: total - samplers - learner,
    }


def _cpu_seconds_of_children() -> dict[int, float]:
    seconds = {}
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in (PROC / str(pid) / "task").iterdir():
                seconds[int(thread.name)] = int((thread / "schedstat").read_text().split()[0]) / 1e9
    return seconds


def core_time_table(medians: Medians) -> str:
    """:param medians: what the cores do"""
    columns = [{part: medians.of(part)[name] for part in medians.quantities} for name in medians.contenders]
    rows = [[part, *(format_number(column[part], 1) for column in columns)] for part in medians.quantities]
    totals = [sum(column.values()) for column in columns]
    useful = [column[PHYSICS] + column[ARITHMETIC] for column in columns]
    rows.append([TOTAL, *(format_number(total, 1) for total in totals)])
    rows.append([SHARE, *(f"{part / total:.0%}" for part, total in zip(useful, totals, strict=True))])
    return format_table(["microseconds a sample", *medians.contenders], rows)
