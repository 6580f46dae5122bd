"""Which measurements are made, and in which order."""

from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

from gymnasium import spaces

from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.benchmark.busy import beside_busy_processes
from sb3_walle.experiments.benchmark.iteration import measure_iteration
from sb3_walle.experiments.benchmark.physical_limit import measure_physical_limit
from sb3_walle.experiments.benchmark.results import (
    BESIDE_OTHERS,
    COLLECTION,
    COMPILED,
    EAGER,
    END_TO_END,
    FIRST_UPDATE,
    MEMORY,
    PHYSICAL_LIMIT,
    SAMPLER_ENV_STEP,
    SAMPLER_STEP,
    START_UP,
    UPDATE_ALONE,
    UPDATE_WHILE_COLLECTING,
    BenchmarkResults,
    first_run,
    iteration_part,
    update_of,
)
from sb3_walle.experiments.benchmark.sampler_step import measure_sampler_step
from sb3_walle.experiments.benchmark.settings import BenchmarkSettings, async_contenders, vec_env_contenders
from sb3_walle.experiments.benchmark.startup import measure_first_update, measure_start_up
from sb3_walle.experiments.benchmark.throughput import (
    measure_collection,
    measure_end_to_end,
    measure_update,
    steps_per_env,
)
from sb3_walle.experiments.benchmark.turns import Found, take_turns
from sb3_walle.experiments.benchmark.update_sizes import BATCH_SIZES, NETS, measure_update_size
from sb3_walle.experiments.contenders import Contender
from sb3_walle.experiments.environments import UsageError, check_environment
from sb3_walle.experiments.machine import describe_machine
from sb3_walle.experiments.training import plural

# Of others, on the machine on which training is measured beside them.
N_BUSY_PROCESSES = 2


def check_settings(settings: BenchmarkSettings) -> None:
    """
    Refuse what cannot be measured, before anything is.

    :param settings: what to measure
    :raises UsageError: if the settings make no sense
    """
    if isinstance(check_environment(settings.env_id).observation_space, spaces.Dict):
        raise UsageError(f"'{settings.env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    for contender in contenders(settings):
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
    measurements = take_turns(settings.repeats, lambda: measure(settings))
    asynchronous, vec_envs = async_contenders(settings), vec_env_contenders(settings)
    return BenchmarkResults(
        settings,
        machine,
        tuple(contender.name for contender in asynchronous),
        tuple(contender.name for contender in vec_envs),
        tuple(measurements),
    )


def measure(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    Measure everything once.

    :param settings: what to measure
    :return: quantities, of whom, and their values
    """
    measures = {
        "collection": collections,
        "sampler": sampler_steps,
        "update": updates,
        "sizes": update_sizes,
        "end-to-end": trainings,
        "busy": trainings_beside_others,
        "iteration": iterations,
        "start": starts,
    }
    for part, measured in measures.items():
        if part in settings.parts:
            yield from measured(settings)


def contenders(settings: BenchmarkSettings) -> tuple[Contender, ...]:
    """
    :param settings: what to measure
    :return: who takes part
    """
    return (*async_contenders(settings), *vec_env_contenders(settings))


def collections(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what all contenders collect, and what could be simulated at most
    """
    physics = measure_physical_limit(settings.env_id, available_cpus(), settings.limit_seconds)
    yield PHYSICAL_LIMIT, physics.what, physics.samples_per_second
    # Nothing is to be compiled meanwhile.
    for contender in contenders(replace(settings, learner="eager")):
        yield COLLECTION, contender.name, measure_collection(contender, settings)


def sampler_steps(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what steps of samplers with one and with several environments take
    """
    for n_envs in dict.fromkeys((1, settings.envs_per_sampler)):
        step = measure_sampler_step(settings.env_id, n_envs)
        yield SAMPLER_STEP, plural(n_envs, "environment"), step.total
        yield SAMPLER_ENV_STEP, plural(n_envs, "environment"), step.environment


def updates(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what updates take, alone and while samplers collect
    """
    asynchronous = async_contenders(settings)
    for contender in (asynchronous[0], vec_env_contenders(settings)[0]):
        yield UPDATE_ALONE, contender.name, measure_update(contender, settings, "sync")
    for contender in asynchronous:
        yield UPDATE_WHILE_COLLECTING, contender.name, measure_update(contender, settings, "pipelined")


def update_sizes(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what updates of several networks with minibatches of several sizes take
    """
    for name, net in NETS.items():
        for batch_size in BATCH_SIZES:
            times = measure_update_size(net, batch_size, repeats=1)
            yield update_of(name, batch_size), EAGER, times.eager
            yield update_of(name, batch_size), COMPILED, times.compiled


def trainings(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what all contenders learn from
    """
    for contender in contenders(settings):
        yield END_TO_END, contender.name, measure_end_to_end(contender, settings)


def trainings_beside_others(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what all contenders learn from while two processes of others compute
    """
    for contender in contenders(settings):
        with beside_busy_processes(N_BUSY_PROCESSES):
            samples_per_second = measure_end_to_end(contender, settings)
        yield BESIDE_OTHERS, contender.name, samples_per_second


def iterations(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what an iteration's time is spent on
    """
    contender = async_contenders(settings)[0]
    for phase, milliseconds in measure_iteration(contender, settings).items():
        yield iteration_part(phase), contender.name, milliseconds


def starts(settings: BenchmarkSettings) -> Iterator[Found]:
    """
    :param settings: what to measure
    :return: what it takes to start, and to get to the first update
    """
    for contender in contenders(settings):
        # DummyVecEnv starts no processes.
        if "DummyVecEnv" not in contender.name:
            start_up = measure_start_up(contender, settings)
            yield START_UP, contender.name, start_up.seconds
            if start_up.memory_bytes is not None:
                yield MEMORY, contender.name, 1e-6 * start_up.memory_bytes
    # As users have it: "auto" does not wait for a compiler.
    default = replace(async_contenders(settings)[0], learner="eager" if settings.learner == "eager" else "auto")
    with TemporaryDirectory() as empty:
        yield FIRST_UPDATE, first_run(default.name), measure_first_update(default, settings, cache=empty)
    later: tuple[Contender, ...] = (default, *vec_env_contenders(settings))
    for contender in later:
        yield FIRST_UPDATE, contender.name, measure_first_update(contender, settings)
