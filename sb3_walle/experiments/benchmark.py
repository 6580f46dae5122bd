"""AsyncPPO against SB3's PPO: what is measured and in which order. How it reads is the report's business."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import sb3_walle
from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.contenders import (
    BenchmarkSettings,
    Contender,
    Mode,
    async_contenders,
    running,
    vec_env_contenders,
)
from sb3_walle.experiments.environments import UsageError, check_environment
from sb3_walle.experiments.physical_limit import measure_physical_limit
from sb3_walle.experiments.startup import measure_start_up

__all__ = ["BenchmarkResults", "BenchmarkSettings", "Machine", "Measurement", "run_benchmark"]

COLLECTION = "collection (samples/s)"
END_TO_END = "end to end (samples/s)"
UPDATE_ALONE = "update, alone (microseconds/minibatch)"
UPDATE_WHILE_COLLECTING = "update, while samplers collect (microseconds/minibatch)"
START_UP = "start-up (seconds)"
MEMORY = "memory of processes (MB)"
PHYSICAL_LIMIT = "physical limit (samples/s)"


@dataclass(frozen=True)
class Measurement:
    """
    One number.

    :param quantity: what was measured, with its unit
    :param contender: of whom
    :param repeat: in which repeat, from 1
    :param value: the number
    """

    quantity: str
    contender: str
    repeat: int
    value: float


@dataclass(frozen=True)
class Machine:
    """
    Where the benchmark ran.

    :param processor: name of the processor
    :param n_cpus: CPUs that the benchmark could use
    :param system: name of the operating system
    :param versions: versions of Python and of the packages, by name
    :param date: date of the measurements, as ISO 8601
    :param load: processes that wanted to run before the benchmark began (load average of the last minute); more than a
        few tenths of one mean that something else ran too, and that the numbers say little
    """

    processor: str
    n_cpus: int
    system: str
    versions: dict[str, str]
    date: str
    load: float


@dataclass(frozen=True)
class BenchmarkResults:
    """
    All numbers of a benchmark.

    :param settings: what was measured
    :param machine: where
    :param async_contenders: names of the configurations of AsyncPPO
    :param vec_env_contenders: names of the configurations of SB3's PPO
    :param limit: what the physical limit was measured with
    :param measurements: the numbers
    """

    settings: BenchmarkSettings
    machine: Machine
    async_contenders: tuple[str, ...]
    vec_env_contenders: tuple[str, ...]
    limit: str
    measurements: tuple[Measurement, ...]

    def median(self, quantity: str, contender: str) -> float | None:
        """
        The median over the repeats.

        :param quantity: what was measured
        :param contender: of whom
        :return: the median; None if that was not measured
        """
        values = [each.value for each in self.measurements if (each.quantity, each.contender) == (quantity, contender)]
        return median(values) if values else None


def describe_machine() -> Machine:
    """
    Look around.

    :return: where the benchmark runs
    """
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    versions = {
        "Python": platform.python_version(),
        "PyTorch": th.__version__,
        "Stable-Baselines3": stable_baselines3.__version__,
        "sb3_walle": sb3_walle.__version__,
    }
    today = date.today().isoformat()
    return Machine(processor, available_cpus(), platform.system(), versions, today, os.getloadavg()[0])


class RolloutClock(BaseCallback):
    """
    Notes when each rollout is complete, and ends ``learn()`` with the last of them.

    From the end of one rollout to the end of a later one, as many updates as collections take place, whichever way
    they overlap. The update after the last rollout would not be measured any more.

    :param n_rollouts: the number of rollouts
    """

    class Done(Exception):
        """The last rollout is complete."""

    def __init__(self, n_rollouts: int) -> None:
        super().__init__()
        self.n_rollouts = n_rollouts
        self.times: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == self.n_rollouts:
            raise self.Done


def steps_per_env(contender: Contender, settings: BenchmarkSettings) -> int:
    """
    Share an iteration's samples among the environments.

    :param contender: whose environments
    :param settings: what to measure
    :return: steps of each environment in an iteration
    """
    return settings.samples_per_iteration // contender.n_envs


@contextmanager
def collecting(
    contender: Contender, settings: BenchmarkSettings, mode: Mode, n_epochs: int
) -> Iterator[tuple[PPO, Callable[[], None]]]:
    """
    An algorithm that collects when told, one rollout after the other.

    :param contender: which algorithm
    :param settings: what to measure
    :param mode: how collection and training overlap, if they can
    :param n_epochs: passes over a rollout in an update
    :return: the algorithm, and what makes it collect a rollout
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": n_epochs, "batch_size": settings.batch_size}
    with running(contender, settings.env_id, mode, **ppo) as model:
        # What learn() does before its first rollout; there is no public way to collect without training.
        rollouts = 1 + settings.iterations
        _, callback = model._setup_learn(total_timesteps=rollouts * n_steps * contender.n_envs)
        callback.on_training_start({}, {})
        env = model.env
        assert env is not None

        def collect() -> None:
            model.collect_rollouts(env, callback, model.rollout_buffer, n_rollout_steps=n_steps)

        collect()
        yield model, collect


def measure_collection(contender: Contender, settings: BenchmarkSettings) -> float:
    """
    Collect rollout after rollout without training.

    :param contender: who collects
    :param settings: what to measure
    :return: samples per second
    """
    with collecting(contender, settings, "sync", n_epochs=1) as (model, collect):
        start = time.perf_counter()
        for _ in range(settings.iterations):
            collect()
        seconds = time.perf_counter() - start
        return settings.iterations * model.n_steps * model.n_envs / seconds


def measure_end_to_end(contender: Contender, settings: BenchmarkSettings) -> float:
    """
    Train, leaving out the construction and the first rollout.

    :param contender: who trains
    :param settings: what to measure
    :return: samples per second
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": settings.n_epochs, "batch_size": settings.batch_size}
    clock = RolloutClock(1 + settings.iterations)
    with running(contender, settings.env_id, "pipelined", **ppo) as model:
        samples = n_steps * contender.n_envs
        try:
            # One more than needed: no algorithm must think that the measured rollouts are the last.
            model.learn((clock.n_rollouts + 1) * samples, callback=clock)
        except RolloutClock.Done:
            return settings.iterations * samples / (clock.times[-1] - clock.times[0])
    raise AssertionError("learn() returned before it had collected all rollouts")


def measure_update(contender: Contender, settings: BenchmarkSettings, mode: Mode) -> float:
    """
    Update the policy after each rollout, with a single pass so that ``"pipelined"`` samplers collect all the while.

    :param contender: whose update
    :param settings: what to measure
    :param mode: ``"sync"`` if nothing else must happen during the update, ``"pipelined"`` if collection must
    :return: microseconds per minibatch
    """
    microseconds = []
    with collecting(contender, settings, mode, n_epochs=1) as (model, collect):
        minibatches = -(-model.n_steps * model.n_envs // settings.batch_size)
        model.train()
        for _ in range(settings.iterations):
            collect()
            start = time.perf_counter()
            model.train()
            microseconds.append(1e6 * (time.perf_counter() - start) / minibatches)
    return median(microseconds)


def check_settings(settings: BenchmarkSettings) -> None:
    """
    Refuse what cannot be measured, before anything is.

    :param settings: what to measure
    :raises UsageError: if the settings make no sense
    """
    if isinstance(check_environment(settings.env_id).observation_space, spaces.Dict):
        raise UsageError(f"'{settings.env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    contenders: tuple[Contender, ...] = (*async_contenders(settings), *vec_env_contenders(settings))
    for contender in contenders:
        if steps_per_env(contender, settings) < 2:
            raise UsageError(
                f"{settings.samples_per_iteration} samples an iteration are too few for the {contender.n_envs} "
                f"environments of '{contender.name}': at least {2 * contender.n_envs} are needed"
            )


def run_benchmark(settings: BenchmarkSettings) -> BenchmarkResults:
    """
    Measure everything, the contenders taking turns within each repeat, and say on stderr how far it is.

    :param settings: what to measure
    :return: all numbers
    :raises UsageError: if the settings make no sense
    """
    check_settings(settings)
    machine = describe_machine()
    asynchronous, vec_envs = async_contenders(settings), vec_env_contenders(settings)
    contenders: tuple[Contender, ...] = (*asynchronous, *vec_envs)
    # DummyVecEnv starts no processes.
    starters = [contender for contender in contenders if "DummyVecEnv" not in contender.name]
    measurements: list[Measurement] = []
    limit = ""

    def record(repeat: int, quantity: str, contender: str, value: float) -> None:
        measurements.append(Measurement(quantity, contender, repeat, value))
        number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        print(f"[{repeat}/{settings.repeats}] {quantity}: {contender}: {number}", file=sys.stderr)

    for repeat in range(1, settings.repeats + 1):
        physics = measure_physical_limit(settings.env_id, available_cpus(), settings.limit_seconds)
        limit = physics.what
        record(repeat, PHYSICAL_LIMIT, limit, physics.samples_per_second)
        for contender in contenders:
            record(repeat, COLLECTION, contender.name, measure_collection(contender, settings))
        for contender in (asynchronous[0], vec_envs[0]):
            record(repeat, UPDATE_ALONE, contender.name, measure_update(contender, settings, "sync"))
        for contender in asynchronous:
            record(repeat, UPDATE_WHILE_COLLECTING, contender.name, measure_update(contender, settings, "pipelined"))
        for contender in contenders:
            record(repeat, END_TO_END, contender.name, measure_end_to_end(contender, settings))
        for contender in starters:
            start_up = measure_start_up(contender, settings)
            record(repeat, START_UP, contender.name, start_up.seconds)
            if start_up.memory_bytes is not None:
                record(repeat, MEMORY, contender.name, 1e-6 * start_up.memory_bytes)
    async_names, vec_env_names = (tuple(each.name for each in group) for group in (asynchronous, vec_envs))
    return BenchmarkResults(settings, machine, async_names, vec_env_names, limit, tuple(measurements))
