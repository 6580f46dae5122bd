"""What a benchmark's numbers look like: tables for people, CSV for programs."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sb3_walle.experiments.benchmark.iteration import PHASES, REST
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
    Measurement,
    iteration_part,
    update_of,
)
from sb3_walle.experiments.benchmark.update_sizes import BATCH_SIZES, NETS

MISSING = "-"
SUBPROC = "SubprocVecEnv"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Align text in columns: the first one to the left, numbers to the right.

    :param header: a title a column
    :param rows: the cells, as many a row as there are titles
    :return: the lines
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def format_ratio(value: float | None, base: float | None) -> str:
    """
    How many times as much.

    :param value: the value
    :param base: what to compare it with
    :return: the ratio with two decimals
    """
    return MISSING if value is None or not base else f"{value / base:.2f}x"


def format_number(value: float | None, decimals: int = 0) -> str:
    """
    A number with thousands separated.

    :param value: the number
    :param decimals: digits after the point
    :return: the text
    """
    return MISSING if value is None else f"{value:,.{decimals}f}"


def format_share(value: float | None, whole: float | None) -> str:
    """
    A share in percent.

    :param value: the part
    :param whole: the whole
    :return: the percentage without decimals
    """
    return MISSING if value is None or not whole else f"{100 * value / whole:.0f}%"


def subproc_name(results: BenchmarkResults) -> str:
    """
    Find SubprocVecEnv among the contenders.

    :param results: the numbers
    :return: its name, empty if it was left out
    """
    return next((name for name in results.vec_env_contenders if SUBPROC in name), "")


def throughput_table(results: BenchmarkResults, quantity: str) -> str:
    """
    Samples per second, and how they compare.

    :param results: the numbers
    :param quantity: collection or training end to end
    :return: the table
    """
    names = results.async_contenders + results.vec_env_contenders
    medians = {name: value for name in names if (value := results.median(quantity, name)) is not None}
    best = max((medians[name] for name in results.vec_env_contenders if name in medians), default=None)
    subproc = medians.get(subproc_name(results))
    limit = results.median(PHYSICAL_LIMIT, results.limit)
    rows = [
        [
            name,
            format_number(value),
            format_ratio(value, best),
            format_ratio(value, subproc),
            format_share(value, limit),
        ]
        for name, value in medians.items()
    ]
    if limit is not None:
        ratios = [format_ratio(limit, best), format_ratio(limit, subproc)]
        rows.append([results.limit, format_number(limit), *ratios, "100%"])
    return format_table(["", "samples/s", "vs best SB3", f"vs {SUBPROC}", "of the limit"], rows)


def update_table(results: BenchmarkResults) -> str:
    """
    Time of an update, alone and next to busy samplers.

    :param results: the numbers
    :return: the table
    """
    base = next(filter(None, (results.median(UPDATE_ALONE, name) for name in results.vec_env_contenders)), None)
    rows = []
    for name in results.async_contenders + results.vec_env_contenders:
        alone, busy = (results.median(quantity, name) for quantity in (UPDATE_ALONE, UPDATE_WHILE_COLLECTING))
        if alone is not None or busy is not None:
            rows.append([name, format_number(alone), format_ratio(base, alone), format_number(busy)])
    return format_table(["microseconds a minibatch", "alone", "faster than SB3", "while samplers collect"], rows)


def sizes_table(results: BenchmarkResults) -> str:
    """
    Times of updates of several networks with minibatches of several sizes.

    :param results: the numbers
    :return: the table
    """
    rows = []
    for batch_size in BATCH_SIZES:
        cells = [f"{batch_size}"]
        for net in NETS:
            eager, compiled = (results.median(update_of(net, batch_size), who) for who in (EAGER, COMPILED))
            cells += [format_number(eager), format_number(compiled), format_ratio(eager, compiled)]
        rows.append(cells)
    titles = [title for net in NETS for title in (f"{net}: SB3", "compiled", "faster")]
    return format_table(["minibatch", *titles], rows)


def sampler_table(results: BenchmarkResults) -> str:
    """
    What a sampler's step takes.

    :param results: the numbers
    :return: the table
    """
    rows = []
    for name in dict.fromkeys(each.contender for each in results.measurements if each.quantity == SAMPLER_STEP):
        total, environment = (results.median(quantity, name) for quantity in (SAMPLER_STEP, SAMPLER_ENV_STEP))
        assert total is not None and environment is not None
        rows.append([name, *(format_number(value, 1) for value in (total, environment, total - environment))])
    return format_table(["microseconds a step", "total", "environment", "sampler"], rows)


def iteration_table(results: BenchmarkResults) -> str:
    """
    What an iteration's time is spent on.

    :param results: the numbers
    :return: the table
    """
    name = results.async_contenders[0]
    found = {phase: results.median(iteration_part(phase), name) for phase in (*PHASES, REST)}
    total = sum(value for value in found.values() if value is not None)
    rows = [[phase, format_number(value, 1), format_share(value, total)] for phase, value in found.items()]
    return format_table([name, "milliseconds", "share"], [*rows, ["iteration", format_number(total, 1), "100%"]])


def start_up_table(results: BenchmarkResults) -> str:
    """
    Time and memory that starting takes.

    :param results: the numbers
    :return: the table
    """
    subproc = subproc_name(results)
    subproc_seconds, subproc_memory = (results.median(quantity, subproc) for quantity in (START_UP, MEMORY))
    rows = []
    for name in results.async_contenders + results.vec_env_contenders:
        seconds, memory = (results.median(quantity, name) for quantity in (START_UP, MEMORY))
        if seconds is not None:
            time_cells = [format_number(seconds, 2), format_ratio(seconds, subproc_seconds)]
            rows.append([name, *time_cells, format_number(memory), format_ratio(memory, subproc_memory)])
    return format_table(["", "seconds", f"vs {SUBPROC}", "memory (MB)", f"vs {SUBPROC}"], rows)


def first_update_table(results: BenchmarkResults) -> str:
    """
    Time that it takes to get to the first update.

    :param results: the numbers
    :return: the table
    """
    names = dict.fromkeys(each.contender for each in results.measurements if each.quantity == FIRST_UPDATE)
    medians = {name: results.median(FIRST_UPDATE, name) for name in names}
    best = min((value for name in results.vec_env_contenders if (value := medians.get(name))), default=None)
    rows = [[name, format_number(value, 1), format_ratio(value, best)] for name, value in medians.items()]
    return format_table(["", "seconds", "vs best SB3"], rows)


def sections(results: BenchmarkResults) -> Iterator[str]:
    """
    Say in tables what was measured.

    :param results: the numbers
    :return: the report's sections
    """
    measured = {each.quantity for each in results.measurements}
    if COLLECTION in measured:
        yield (
            "Collection: collect_rollouts() without training; samplers overlap with nothing (mode 'sync')\n\n"
            + throughput_table(results, COLLECTION)
        )
    if SAMPLER_STEP in measured:
        yield (
            "A sampler's step: what the environment and Gymnasium's own wrappers take, and what all the rest takes\n"
            "(policy, Monitor, recording)\n\n" + sampler_table(results)
        )
    if UPDATE_ALONE in measured:
        yield (
            "Update: train() with one epoch, while samplers are idle and while they collect the next rollout\n\n"
            + update_table(results)
        )
    if {update_of(net, BATCH_SIZES[0]) for net in NETS} & measured:
        yield (
            "Update, by network and size of the minibatch: train() alone, with all threads of torch;\n"
            "microseconds a minibatch\n\n" + sizes_table(results)
        )
    if END_TO_END in measured:
        yield (
            "Training end to end: learn() without construction, first rollout and first update (AsyncPPO in mode\n"
            "'pipelined')\n\n" + throughput_table(results, END_TO_END)
        )
    if BESIDE_OTHERS in measured:
        yield (
            "Training end to end, while two processes of others compute all the time\n\n"
            + throughput_table(results, BESIDE_OTHERS)
        )
    if iteration_part(REST) in measured:
        yield "An iteration of training, on the learner's side, under Python's profiler\n\n" + iteration_table(results)
    if START_UP in measured:
        yield (
            "Start-up in a fresh process: constructor to the end of a rollout of 2 steps, and memory of all processes\n"
            "but the learner's (PSS)\n\n" + start_up_table(results)
        )
    if FIRST_UPDATE in measured:
        yield (
            "First update in a fresh process: constructor to the end of the first update. In the first run the update\n"
            "is compiled meanwhile, in the background; in later ones it is found on disk\n\n"
            + first_update_table(results)
        )


def format_report(results: BenchmarkResults) -> str:
    """
    The report that the command prints.

    :param results: the numbers
    :return: the text
    """
    settings, machine = results.settings, results.machine
    heading = (
        f"{settings.env_id} {machine.in_words()}\n\n"
        f"{settings.samples_per_iteration:,} samples an iteration, {settings.n_epochs} epoch(s) of minibatches of "
        f"{settings.batch_size}, MlpPolicy on the CPU, learner '{settings.learner}'\n"
        f"Medians of {settings.repeats} repeat(s), in each of which the contenders took turns\n"
        "'AsyncPPO, S x E' has S samplers of E environments; 'best SB3' is the fastest of SB3's VecEnvs"
    )
    return "\n\n\n".join([heading, *sections(results)]) + "\n"


def write_csv(results: BenchmarkResults, path: Path) -> None:
    """
    Write every single measurement.

    :param results: the numbers
    :param path: the file, which is replaced
    """
    write_measurements(results.measurements, path)


def write_measurements(measurements: Iterable[Measurement], path: Path) -> None:
    """
    Write every single measurement.

    :param measurements: the numbers
    :param path: the file, which is replaced
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["quantity", "contender", "repeat", "value"])
        writer.writerows([each.quantity, each.contender, each.repeat, each.value] for each in measurements)
