"""The parts of the benchmark: what each measures, and how its numbers look."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.core_time import core_time_table, measure_core_time
from benchmarks.speed.gradient_step import gradient_step_table, measure_gradient_steps
from benchmarks.speed.iteration_profile import iteration_table, measure_iteration
from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.sampler_step import measure_sampler_steps, sampler_table
from benchmarks.speed.start_up import measure_starts, start_tables
from benchmarks.speed.throughput import (
    STEP_LATENCY,
    measure_collection,
    measure_training,
    measure_training_beside_others,
    measure_training_with_slow_envs,
    throughput_tables,
)
from benchmarks.speed.update_sizes import measure_update_sizes, sizes_table
from benchmarks.speed.update_time import measure_updates, update_table


@dataclass(frozen=True)
class Part:
    """
    Something that can be measured by itself.

    :param title: what it measures
    :param measure: takes the settings, and measures once, the contenders one after the other
    :param table: shows its numbers
    """

    title: str
    measure: Callable[[Any], Iterator[Found]]
    table: Callable[[Medians], str]


COLLECTION = Part("Collection: learn() without updates", measure_collection, throughput_tables)
TRAINING = Part(
    "Training end to end: learn() without construction and first updates", measure_training, throughput_tables
)
BUSY = Part(
    "Training end to end, while two processes of others compute all the time",
    measure_training_beside_others,
    throughput_tables,
)
SLOW = Part(
    f"Training with a simulator that waits {1e3 * STEP_LATENCY:g} ms a step",
    measure_training_with_slow_envs,
    throughput_tables,
)
CORES = Part(
    "What the cores do for one sample of a training: microseconds of a core. EnvPool, if it is installed",
    measure_core_time,
    core_time_table,
)
PPO_PARTS = {
    "collection": COLLECTION,
    "sampler": Part(
        "A sampler's step: what the environment and Gymnasium's own wrappers take, and what all the rest takes\n"
        "(policy, Monitor, recording)",
        measure_sampler_steps,
        sampler_table,
    ),
    "update": Part(
        "Update: train() with one epoch, while samplers are idle and while they collect the next rollout",
        measure_updates,
        update_table,
    ),
    "sizes": Part(
        "Update, by network and size of the minibatch: train() alone, with all threads of torch;\n"
        "microseconds a minibatch",
        measure_update_sizes,
        sizes_table,
    ),
    "end-to-end": TRAINING,
    "busy": BUSY,
    "iteration": Part(
        "An iteration of training, on the learner's side, under Python's profiler", measure_iteration, iteration_table
    ),
    "cores": CORES,
    "start": Part(
        "Start-up in a fresh process: constructor to the end of a rollout of 2 steps, and memory of all processes\n"
        "but the learner's (PSS). First update: constructor to its end. In the first run it is compiled meanwhile, in\n"
        "the background; in later ones it is found on disk",
        measure_starts,
        start_tables,
    ),
}
OFF_POLICY_PARTS = {
    "collection": COLLECTION,
    "update": Part("A gradient step, on one thread", measure_gradient_steps, gradient_step_table),
    "end-to-end": TRAINING,
    "cores": CORES,
    "slow": SLOW,
}


def parts_of(algorithm: str) -> dict[str, Part]:
    """:return: what can be measured of it"""
    return PPO_PARTS if algorithm == "ppo" else OFF_POLICY_PARTS
