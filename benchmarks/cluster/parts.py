"""The parts of the benchmark: what each measures, and how its numbers look."""

from benchmarks.cluster.contenders import BACKENDS, PROCESS, RAY
from benchmarks.cluster.memory_growth import measure_growth
from benchmarks.cluster.start import measure_start
from benchmarks.cluster.throughput import (
    STEP_LATENCY,
    measure_collection,
    measure_sizes,
    measure_training,
    measure_waiting,
)
from benchmarks.speed.measurements import Medians
from benchmarks.speed.parts import Part
from benchmarks.text_tables import format_number
from sb3_walle.cli.tables import format_ratio, format_table


def table_of_contenders(medians: Medians) -> str:
    """:return: a table for each quantity, with a row for each contender"""
    tables = []
    for quantity in medians.quantities:
        values = medians.of(quantity)
        rows = [[name, number(value), format_ratio(value, values.get(PROCESS))] for name, value in values.items()]
        tables.append(format_table([quantity, "", "vs process"], rows))
    return "\n\n".join(tables)


def table_of_backends(medians: Medians) -> str:
    """:return: a table with a row for each quantity, and a column for each backend"""
    rows = []
    for quantity in medians.quantities:
        process, ray = (medians.of(quantity)[name] for name in (PROCESS, RAY))
        rows.append([quantity, number(process), number(ray), format_ratio(ray, process)])
    return format_table(["steps/s", *BACKENDS.values(), "vs process"], rows)


def table_of_growth(medians: Medians) -> str:
    """:return: a table with a row for what takes memory, and a column for each number of chunks"""
    rows = [[name, *(number(medians.get(each, name)) for each in medians.quantities)] for name in medians.contenders]
    return format_table(["", *medians.quantities], rows)


def number(value: float | None) -> str:
    """:return: a number with about three digits"""
    return format_number(value, 0 if value is None or value >= 1000 else 1 if value >= 10 else 2)


PARTS = {
    "collection": Part("Collection: learn() without updates", measure_collection, table_of_contenders),
    "waiting": Part(
        f"Collection from environments that wait {1e3 * STEP_LATENCY:g} ms a step", measure_waiting, table_of_contenders
    ),
    "training": Part("Training end to end, without the first updates", measure_training, table_of_contenders),
    "sizes": Part("Collection by what has to be carried", measure_sizes, table_of_backends),
    "start": Part(
        "Start in a fresh process, on a running cluster of two nodes: constructor to the end of a rollout of 2 steps,\n"
        "the connection to the cluster included; and memory (PSS) that further samplers take",
        measure_start,
        table_of_contenders,
    ),
    "growth": Part(
        "Memory on a cluster of two nodes, without files and shared memory of fixed size, and what the object stores\n"
        "held at most until then",
        measure_growth,
        table_of_growth,
    ),
}
