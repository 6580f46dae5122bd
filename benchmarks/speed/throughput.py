"""Steps per second of all contenders: while they collect, while they train, beside other processes, with slow envs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from benchmarks.slow_envs import Slowness
from benchmarks.speed.busy_processes import beside_busy_processes
from benchmarks.speed.measurements import Found, Medians, is_sb3s
from benchmarks.speed.physical_limit import measure_physical_limit
from benchmarks.speed.sbx_contenders import sbx_trainees
from benchmarks.speed.speed_settings import SpeedSettings
from benchmarks.text_tables import format_number
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import measure, stop_updates

SUBPROC = "SubprocVecEnv"
LIMIT = "physical limit, steps/s"
COLLECTION = "steps/s"
# Of others, on the machine on which training is measured beside them.
N_BUSY_PROCESSES = 2
# Of the simulator that waits, in seconds.
STEP_LATENCY = 5e-3


def measure_collection(settings: SpeedSettings) -> Iterator[Found]:
    """:return: what all contenders collect, and what could be simulated at most"""
    limit = measure_physical_limit(settings.env_id, available_cpus(), settings.limit_seconds)
    yield LIMIT, limit.what, limit.samples_per_second
    # Compiling would take time from the samplers.
    for trainee in replace(settings, learner="eager").trainees():
        with trainee.running(settings.env_id, **settings.collecting) as model:
            stop_updates(model)
            yield COLLECTION, trainee.name, measure(model, settings.stopwatch(model.n_envs))


def measure_training(settings: SpeedSettings) -> Iterator[Found]:
    """:return: how fast all contenders train"""
    return _trainings(settings, nullcontext())


def measure_training_beside_others(settings: SpeedSettings) -> Iterator[Found]:
    """:return: how fast all contenders train while two processes of others compute"""
    return _trainings(settings, beside_busy_processes(N_BUSY_PROCESSES))


def measure_training_with_slow_envs(settings: SpeedSettings) -> Iterator[Found]:
    """:return: how fast all contenders train with a simulator that only waits"""
    return _trainings(settings, nullcontext(), Slowness(STEP_LATENCY, elsewhere=True))


def _trainings(
    settings: SpeedSettings, surroundings: AbstractContextManager[None], slowness: Slowness | None = None
) -> Iterator[Found]:
    with surroundings:
        for quantity, arguments in settings.training.items():
            trainees = settings.trainees(slowness)
            for trainee in (*trainees, *(sbx_trainees(trainees) if settings.sbx else ())):
                with trainee.running(settings.env_id, **arguments) as model:
                    yield quantity, trainee.name, measure(model, settings.stopwatch(model.n_envs))


def throughput_tables(medians: Medians) -> str:
    """:return: a table for each quantity: the steps, and how they compare"""
    limit = medians.of(LIMIT)
    quantities = [quantity for quantity in medians.quantities if quantity != LIMIT]
    return "\n\n".join(_table(quantity, medians.of(quantity), limit) for quantity in quantities)


def _table(quantity: str, rates: dict[str, float], limit: dict[str, float]) -> str:
    sb3s = {name: rate for name, rate in rates.items() if is_sb3s(name)}
    best = max(sb3s.values(), default=None)
    subproc = next((rate for name, rate in sb3s.items() if SUBPROC in name), None)
    most = next(iter(limit.values()), None)
    header = ["", quantity, "vs best SB3", f"vs {SUBPROC}"]
    rows = [
        [name, format_number(rate), format_ratio(rate, best), format_ratio(rate, subproc)]
        for name, rate in {**rates, **limit}.items()
    ]
    if most is not None:
        header.append("of the limit")
        for row, rate in zip(rows, {**rates, **limit}.values(), strict=True):
            row.append(f"{rate / most:.0%}")
    return format_table(header, rows)
