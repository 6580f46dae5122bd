"""Whether a compiled step has done what the policy does, half by half from equal states."""

import torch as th

from sb3_walle.updates.step import Gradient, Minibatch, Stage, State, UpdateStep

# Rounding makes the two differ by far less. This finds a policy that computes something else than when it was
# traced.
MAX_GRADIENT_DIFFERENCE = 1e-2
MAX_STEP_DIFFERENCE = 1e-2
# Relative to numbers above 1.
MAX_BUFFER_DIFFERENCE = 1e-3
# Relative to the length of a vector of parameters: what rounding does to a step that is short.
ROUNDING = 1e-6


def agrees(step: UpdateStep, before: State, found: State, minibatch: Minibatch, statistics: th.Tensor) -> bool:
    """
    Whether a program's minibatch agrees with an eager one but for rounding.

    Each half of each stage is made eagerly from what the program has found in the half before. So neither Adam, which
    makes full steps of gradients that are nothing but rounding, nor a stage before adds to a difference.

    :param step: one minibatch, eagerly
    :param before: the state before the minibatch
    :param found: as the program has left it
    :param minibatch: what was learned from
    :param statistics: what the program has returned: statistics, and errors of samples after them, if any
    """
    state, values = before, iter(statistics)
    for stage in step.made:
        gradient = step.gradient(stage, state, minibatch)
        expected, further = step.apply(stage, state, gradient, minibatch)
        numbers = {**gradient.statistics, **further}
        for name in stage.statistics:
            size = max(1.0, float(gradient.sizes.get(name, 0.0)))
            if _difference(numbers[name], next(values), size) > step.max_difference:
                return False
        if gradient.errors is not None:
            of_samples = statistics[len(step.statistics) :]
            if _difference(gradient.errors, of_samples) > step.max_difference:
                return False
        if not _gradients_agree(gradient, expected, found):
            return False
        expected = _applied(step, stage, (state, expected, found), gradient, minibatch)
        if not _steps_agree(state, expected, found):
            return False
        changed = {name for name, group in expected.groups.items() if group is not state.groups[name]}
        state = State(
            {name: (found if name in changed else state).groups[name] for name in state.groups},
            found.buffers,
            state.fixed,
        )
    return True


def _gradients_agree(gradient: Gradient, expected: State, found: State) -> bool:
    for name in gradient.vectors:
        one, other = expected.groups[name].gradient, found.groups[name].gradient
        assert one is not None and other is not None
        length = th.maximum(_length(one), gradient.sizes.get(name, th.zeros_like(one[0])))
        if not _is_close(one, other, MAX_GRADIENT_DIFFERENCE * length + ROUNDING):
            return False
    return True


def _applied(
    step: UpdateStep, stage: Stage, states: tuple[State, State, State], gradient: Gradient, minibatch: Minibatch
) -> State:
    """
    What the stage's second half makes of the gradients that the program has found.

    :param states: before the stage, as it should be after it, and as the program has left it
    """
    state, expected, _ = states
    taken: dict[str, th.Tensor] = {}
    for name in gradient.vectors:
        before, after, other = (some.groups[name].gradient for some in states)
        assert before is not None and after is not None and other is not None
        if th.equal(before, after) or not other.isfinite().all():
            # The step was refused and has left no gradient, or its gradient cannot be clipped again.
            return expected
        taken[name] = other
    return step.apply(stage, state, gradient._replace(vectors=taken), minibatch)[0]


def _steps_agree(before: State, expected: State, found: State) -> bool:
    for name, group in expected.groups.items():
        if group is before.groups[name]:
            continue
        for start, one, other in zip(
            before.groups[name].tensors(), group.tensors(), found.groups[name].tensors(), strict=True
        ):
            allowed = MAX_STEP_DIFFERENCE * _length(one - start) + ROUNDING * (1 + _length(one))
            if not _is_close(one, other, allowed):
                return False
    pairs = zip(expected.buffers, found.buffers, strict=True)
    return all(_difference(one, other) <= MAX_BUFFER_DIFFERENCE for one, other in pairs)


def _difference(expected: th.Tensor, found: th.Tensor, size: float = 1.0) -> float:
    """The largest difference, relative to numbers above a size; that of two NaN or equal infinities is 0."""
    if expected.numel() == 0:
        return 0.0
    expected, found = expected.double(), found.double()
    return (_distance(expected, found) / expected.abs().nan_to_num(0.0).clamp(min=size)).max().item()


def _is_close(expected: th.Tensor, found: th.Tensor, allowed: th.Tensor) -> bool:
    return bool(th.linalg.vector_norm(_distance(expected, found)) <= allowed)


def _length(vector: th.Tensor) -> th.Tensor:
    return th.linalg.vector_norm(vector.nan_to_num(0.0, 0.0, 0.0))


def _distance(expected: th.Tensor, found: th.Tensor) -> th.Tensor:
    """Where there is NaN, or the same infinity, in both of them, they agree."""
    same = (expected == found) | (expected.isnan() & found.isnan())
    return th.where(same, 0.0, (expected - found).abs().nan_to_num(th.inf))
