"""What the cores do for one sample of a training: physics, the update's arithmetic, and everything beside them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch as th

from benchmarks.contenders import AsyncContender, Trainee
from benchmarks.pools import EnvPoolContender, has_envpool, pool_seconds
from benchmarks.speed.measurements import Found, Medians, is_sb3s
from benchmarks.speed.physical_limit import measure_physical_limit
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.speed.sampler_step import measure_sampler_step
from benchmarks.speed.speed_settings import SpeedSettings
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
# For which a program is called.
SECONDS = 0.5
PROC = Path("/proc")


@dataclass
class ProgramCalls:
    """The calls of one program: how many, with what it was called last, and with how many threads."""

    program: NativeProgram
    number: int = 0
    inputs: list[th.Tensor] = field(default_factory=list)
    n_threads: int = 1

    def cpu_seconds(self) -> float:
        """:return: what all calls together take if nothing is done between them"""
        n_calls, ended = 0, time.perf_counter() + SECONDS
        with threads_at_most(self.n_threads):
            started = time.process_time()
            # Not for long: a program that trains with the same samples again and again comes to numbers so small that
            # the CPU is slow at them.
            while time.perf_counter() < ended:
                self.program(self.inputs)
                n_calls += 1
            return self.number * (time.process_time() - started) / n_calls


@dataclass
class Programs:
    """All programs that updates have called, since :meth:`start`."""

    calls: dict[NativeProgram, ProgramCalls] = field(default_factory=dict)

    def start(self) -> None:
        self.calls.clear()

    @contextmanager
    def noted(self) -> Iterator[None]:
        call = NativeProgram.__call__

        def note(program: NativeProgram, inputs: list[th.Tensor]) -> th.Tensor:
            calls = self.calls.setdefault(program, ProgramCalls(program))
            calls.number, calls.inputs, calls.n_threads = calls.number + 1, inputs, th.get_num_threads()
            return call(program, inputs)

        with mock.patch.object(NativeProgram, "__call__", note):
            yield

    def cpu_seconds(self) -> float:
        """:return: what their calls take if nothing is done between them"""
        return sum(calls.cpu_seconds() for calls in self.calls.values())


@dataclass
class CPUTime:
    """CPU seconds of a training, from when :meth:`start` is called."""

    learner: float = 0.0
    update: float = 0.0
    samplers: dict[int, float] = field(default_factory=dict)
    n_samples: int = 0

    def start(self, num_timesteps: int) -> None:
        self.n_samples = num_timesteps
        self.learner, self.update, self.samplers = time.process_time(), 0.0, _cpu_seconds_of_children()

    def stop(self, num_timesteps: int) -> None:
        """Keep what was used since the start."""
        self.n_samples = num_timesteps - self.n_samples
        self.learner = time.process_time() - self.learner
        now = _cpu_seconds_of_children()
        self.samplers = {pid: seconds - self.samplers.get(pid, 0.0) for pid, seconds in now.items()}

    def note_updates(self, model: Any) -> None:
        """Have the updates of an algorithm measured."""
        train = model.train

        def timed(*args: Any, **kwargs: Any) -> None:
            before = time.process_time()
            train(*args, **kwargs)
            self.update += time.process_time() - before

        # An instance's attribute comes before its class's method.
        model.train = timed


def measure_core_time(settings: SpeedSettings) -> Iterator[Found]:
    """:return: microseconds of a core for each sample of an iteration, by what they are spent on"""
    n_cpus = available_cpus()
    physics = 1e6 * n_cpus / measure_physical_limit(settings.env_id, n_cpus, settings.limit_seconds).samples_per_second
    for trainee in trainees(settings):
        for part, microseconds in core_time(trainee, settings, physics, n_cpus).items():
            yield part, trainee.name, microseconds


def trainees(settings: SpeedSettings) -> list[Trainee]:
    """:return: as many environments in different numbers of samplers, and in EnvPool's, where that is installed"""
    if not isinstance(settings, PPOSpeed):
        arguments = dict(list(settings.training.values())[-1])
        ours = [each for each in settings.trainees() if not is_sb3s(each.name) and each.mode == "pipelined"]
        return [replace(each, arguments={**each.arguments, **arguments}) for each in ours]
    n_envs, n_cpus = settings.n_samplers, available_cpus()
    shapes = dict.fromkeys((shape, n_envs // shape) for shape in (n_envs, n_cpus) if n_envs % shape == 0)
    contenders: list[AsyncContender] = [AsyncContender(*shape, settings.learner) for shape in shapes]
    if has_envpool() and "HalfCheetah" in settings.env_id:
        contenders += [EnvPoolContender(*shape, settings.learner) for shape in list(shapes)[1:]]
    return [Trainee(each.name, each, "pipelined", settings.arguments(each)) for each in contenders]


def core_time(trainee: Trainee, settings: SpeedSettings, physics: float, n_cpus: int) -> dict[str, float]:
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
    programs, used = Programs(), CPUTime()
    with programs.noted(), trainee.running(settings.env_id) as model:
        used.note_updates(model)

        def start() -> None:
            programs.start()
            used.start(model.num_timesteps)

        rate = measure(model, settings.stopwatch(model.n_envs, on_start=start))
        used.stop(model.num_timesteps)
        program = programs.cpu_seconds()
    total = 1e6 * n_cpus / rate
    samplers, update, learner, arithmetic = (
        1e6 * seconds / used.n_samples for seconds in (sum(used.samplers.values()), used.update, used.learner, program)
    )
    return {
        PHYSICS: physics,
        ENVIRONMENT: environment - physics,
        SAMPLERS: samplers - environment,
        ARITHMETIC: arithmetic,
        UPDATE: update - arithmetic,
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
