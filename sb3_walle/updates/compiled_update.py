"""A whole update with compiled programs, minibatch after minibatch. Nothing here may cost much next to the programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_walle.sb3_private import update_learning_rate
from sb3_walle.updates.algorithm_update import AlgorithmUpdate, Progress
from sb3_walle.updates.comparison import agrees
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.traced_step import TracedStep, adopted_state
from sb3_walle.updates.unsupported import Unsupported

_DIFFERS = "the policy computes something else than it did when its update was compiled"


def make_update(
    update: AlgorithmUpdate,
    groups: Sequence[ParameterGroup],
    steps: Mapping[str, TracedStep],
    programs: Mapping[str, Program],
    number: int,
    is_compared: bool,
    may_differ: bool = False,
) -> tuple[int, bool]:
    """
    Update the policy as SB3's ``train()`` does, and record what it records.

    :param update: the algorithm's update
    :param groups: its groups of parameters
    :param steps: its steps by name
    :param programs: the same as machine code
    :param number: number of the update, from 1
    :param is_compared: whether the first minibatch is compared with an eager one
    :param may_differ: whether a difference makes all minibatches of this update eager, instead of being an error
    :return: number of minibatches, and whether the first agreed
    :raises Unsupported: if a program does not compute what the policy does; nothing has changed then
    :raises NonFiniteError: if a loss or gradient is not finite, and that is an error
    """
    algorithm = update.algorithm
    update_learning_rate(algorithm, [group.optimizer for group in groups if group.optimizer is not None])
    state = adopted_state(algorithm.policy, groups, next(iter(steps.values())).eager.spec)
    always = [*state.changing(), *state.fixed]
    trained = [group for group in groups if group.optimizer is not None]
    # What depends on the number of each optimizer's step.
    adam = {group.spec.name: update.tensor(group.adam_coefficients(update.n_minibatches())) for group in trained}
    tables = [(name, table.unbind()) for name, table in adam.items()]
    progress, made = Progress(groups), dict.fromkeys(adam, 0)
    random_states = np.random.get_state(), th.get_rng_state()
    is_compared, is_same = is_compared and update.is_comparable(), True
    try:
        for program, rows, numbers in update.minibatches(progress):
            step = steps[program]
            inputs = [*always, *rows, *numbers, *[table[made[name]] for name, table in tables]]
            # len() of a tensor goes through Python.
            if rows[0].shape[0] != step.batch_size or not is_same:
                found = step.eager(*inputs)[0]
            elif is_compared:
                is_compared = False
                found, is_same = _compared(step, programs[program], inputs, may_differ)
            else:
                found = programs[program](inputs)
            progress.step, progress.inputs = step.eager, inputs
            progress.statistics.append(found)
            progress.programs.append(program)
            for name in step.eager.trained:
                made[name] += 1
    except Unsupported:
        if not progress.statistics:
            # As if nothing had been sampled.
            np.random.set_state(random_states[0])
            th.set_rng_state(random_states[1])
        raise
    finally:
        for group in trained:
            group.count_steps(made[group.spec.name] - progress.is_refused)
    update.finish(number, progress)
    return len(progress.statistics), is_same


def _compared(step: TracedStep, program: Program, inputs: list[th.Tensor], may_differ: bool) -> tuple[Any, bool]:
    """
    A minibatch, compared with an eager one. If the two differ and may, the eager one counts; if they may not, nothing
    has changed.
    """
    n = step.n_in_place
    before = [tensor.clone() for tensor in inputs[:n]]
    found = program(inputs)
    state, minibatch = step.eager.unpacked([*before, *inputs[n:]])
    if agrees(step.eager, state, step.eager.unpacked(inputs)[0], minibatch, found):
        return found, True
    for tensor, value in zip(inputs[:n], before, strict=True):
        tensor.copy_(value)
    if not may_differ:
        raise Unsupported(_DIFFERS)
    return step.eager(*inputs)[0], False
