"""Whether several learners are faster than one: found out by the first compiled updates."""

from typing import Any

import pytest

from sb3_walle.updates.trial import MIN_GAIN, MIN_MINIBATCHES, N_NOT_TIMED, N_TIMED, Trial
from sb3_walle.updates.unsupported import Unsupported

N = N_NOT_TIMED + N_TIMED


class Compiler:
    """Compiles at once, or when it is told to."""

    def __init__(self, is_ready: bool = True) -> None:
        self.is_ready, self.is_begun = is_ready, False

    def begin(self) -> None:
        self.is_begun = True

    def programs(self, wait: bool) -> dict[str, Any] | None:
        assert not wait
        return {} if self.is_ready else None


def trial_of(one: Any, several: Any) -> Trial:
    return Trial(one, lambda: several)


def after_updates(trial: Trial, n: int, seconds: dict[Any, float], n_minibatches: int = MIN_MINIBATCHES) -> list[Any]:
    """Which compilers have made so many updates, each of which takes what its compiler's do."""
    made = []
    for _ in range(n):
        made.append(trial.compiler())
        trial.note(made[-1], seconds[made[-1]], n_minibatches)
    return made


@pytest.mark.parametrize("gain", [MIN_GAIN * 1.01, MIN_GAIN * 0.99, 0.5])
def test_the_faster_ones_make_all_that_follow(gain: float) -> None:
    one, several = Compiler(), Compiler()
    trial = trial_of(one, several)
    made = after_updates(trial, 3 * N, {one: 1e-3, several: 1e-3 / gain})
    assert made[: 2 * N] == [one] * N + [several] * N
    assert trial.gain == pytest.approx(gain)
    assert trial.is_won == (gain > MIN_GAIN)
    assert set(made[2 * N :]) == {several if gain > MIN_GAIN else one}


def test_one_learner_goes_on_while_programs_for_several_are_compiled() -> None:
    one, several = Compiler(), Compiler(is_ready=False)
    trial = trial_of(one, several)
    seconds = {one: 1e-3, several: 5e-4}
    assert after_updates(trial, N, seconds) == [one] * N and not several.is_begun
    assert after_updates(trial, 3, seconds) == [one] * 3 and several.is_begun
    several.is_ready = True
    assert after_updates(trial, N + 1, seconds) == [several] * (N + 1)
    assert trial.is_won


def test_updates_of_one_minibatch_are_not_few() -> None:
    one, several = Compiler(), Compiler()
    made = after_updates(trial_of(one, several), MIN_MINIBATCHES + 1, {one: 1e-3, several: 5e-4}, n_minibatches=1)
    assert made == [one] * MIN_MINIBATCHES + [several]


def test_what_cannot_be_divided_has_one_learner() -> None:
    one: Any = Compiler()

    def make() -> Any:
        raise Unsupported("the policy has buffers")

    trial = Trial(one, make)
    assert after_updates(trial, 2 * N, {one: 1e-3}) == [one] * 2 * N
    assert trial.gain == 0.0 and not trial.is_won
