"""Which measurements of an off-policy algorithm are made, in which order, and what their report looks like."""

from collections.abc import Iterator
from pathlib import Path

from sb3_walle.experiments.benchmark.report import format_number, format_ratio, format_table, write_measurements
from sb3_walle.experiments.benchmark.results import Measurement, median_of
from sb3_walle.experiments.benchmark.turns import Found, take_turns
from sb3_walle.experiments.machine import Machine, describe_machine
from sb3_walle.experiments.off_policy_algorithms import check_spaces
from sb3_walle.experiments.replay_benchmark.measure import measure_collection, measure_training, measure_updates
from sb3_walle.experiments.replay_benchmark.settings import GRADIENT_STEPS, STEP_LATENCY, ReplaySettings
from sb3_walle.experiments.slow_envs import Slowness

COLLECTION = "Collection, without updates (steps/s)"
UPDATE = "A gradient step, on one thread (ms)"
SLOW = f"Training with a simulator that waits {1e3 * STEP_LATENCY:g} ms a step, gradient_steps=1 (steps/s)"
SB3S, OURS = "SB3", "ours"


def end_to_end(gradient_steps: int) -> str:
    """
    :param gradient_steps: the algorithm's
    :return: what is measured with it
    """
    return f"Training, train_freq=1, gradient_steps={gradient_steps} (steps/s)"


def run_replay_benchmark(settings: ReplaySettings, out: Path | None = None) -> str:
    """
    Measure everything, the contenders taking turns within each repeat, and say on stderr how far it is.

    :param settings: what to measure
    :param out: CSV file for every single measurement
    :return: the report
    :raises UsageError: if the settings make no sense
    """
    check_spaces(settings.algorithm, settings.env_id)
    machine = describe_machine()
    measurements = take_turns(settings.repeats, lambda: measure(settings))
    if out is not None:
        write_measurements(measurements, out)
    return format_replay_report(settings, machine, measurements)


def measure(settings: ReplaySettings) -> Iterator[Found]:
    """
    Measure everything once.

    :param settings: what to measure
    :return: quantities, of whom, and their values
    """
    contenders = settings.contenders()
    if "collection" in settings.parts:
        for contender in contenders:
            yield COLLECTION, contender.name, measure_collection(contender, settings)
    if "update" in settings.parts:
        yield from ((UPDATE, name, value) for name, value in zip((SB3S, OURS), measure_updates(settings), strict=True))
    if "end-to-end" in settings.parts:
        for gradient_steps in GRADIENT_STEPS:
            for contender in contenders:
                value = measure_training(contender, settings, gradient_steps)
                yield end_to_end(gradient_steps), contender.name, value
    if "slow" in settings.parts:
        for contender in settings.contenders(Slowness(STEP_LATENCY, elsewhere=True)):
            yield SLOW, contender.name, measure_training(contender, settings, 1)


def format_replay_report(settings: ReplaySettings, machine: Machine, measurements: list[Measurement]) -> str:
    """
    :param settings: what was measured
    :param machine: where
    :param measurements: the numbers
    :return: the text that the command prints
    """
    heading = (
        f"{settings.algorithm.upper()}, {settings.env_id} {machine.in_words()}\n\n"
        f"{settings.n_samplers} environments, MlpPolicy on the CPU, {settings.arguments_in_words}\n"
        f"Medians of {settings.repeats} repeat(s), in each of which the contenders took turns"
    )
    quantities = dict.fromkeys(each.quantity for each in measurements)
    return "\n\n\n".join([heading, *(_section(quantity, settings, measurements) for quantity in quantities)]) + "\n"


def _section(quantity: str, settings: ReplaySettings, measurements: list[Measurement]) -> str:
    if quantity == UPDATE:
        values = {name: median_of(measurements, quantity, name) for name in (SB3S, OURS)}
        rows = [[name, format_number(value, 2), format_ratio(values[SB3S], value)] for name, value in values.items()]
        return f"{quantity}\n\n{format_table(['', 'ms', 'times as fast'], rows)}"
    values = {name: median_of(measurements, quantity, name) for name in settings.names}
    sb3s = {vec_env: values[name] for name, vec_env in settings.names.items() if vec_env is not None}
    best = max((value for value in sb3s.values() if value is not None), default=None)
    rows = [
        [name, format_number(value), format_ratio(value, best), format_ratio(value, sb3s.get("DummyVecEnv"))]
        for name, value in values.items()
    ]
    return f"{quantity}\n\n{format_table(['', 'steps/s', 'vs best SB3', 'vs DummyVecEnv'], rows)}"
