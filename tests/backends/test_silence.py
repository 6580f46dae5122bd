"""The user is told once of samplers that have not been heard of for a minute, and of what they do, but of no others."""

import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count

import gymnasium as gym
import pytest

from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import Event
from sb3_walle.backends.silence import NOTICE_AFTER, SilenceWarning
from sb3_walle.backends.supervised_sampler import SupervisedSampler
from sb3_walle.samplers.errors import Failure, SamplerWarning
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.requests import BuildEnvs, Drive, EnvIsWrapped, GetAttr, Request, Reset, Result
from sb3_walle.samplers.tickets import ChunkReport, DriveOrder

BUILD = BuildEnvs([], (), False)
RESET = Reset([1], [{}])
LOOK = GetAttr("x", [0])


class Clock:
    """Stands for the module ``time``, and shows the time that it was set to."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


class Mailboxes:
    """A backend that takes everything and does nothing."""

    n_samplers, n_processes = 3, 0

    def send(self, sampler: int, number: int, request: Request) -> bool:
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        return None

    def seconds_at_step(self, sampler: int) -> float:
        return 0.0

    def kill(self, sampler: int) -> None:
        pass

    def start(self, sampler: int) -> None:
        pass

    def close(self, timeout: float | None = None) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("supervised_sampler", "silence"):
        monkeypatch.setattr(f"sb3_walle.backends.{module}.time", clock)
    return clock


@pytest.fixture
def samplers(clock: Clock) -> list[SupervisedSampler]:
    numbers, backend = count(1000), Mailboxes()
    return [SupervisedSampler(index, backend, numbers, deque()) for index in range(Mailboxes.n_samplers)]


@pytest.fixture
def silence(samplers: Sequence[SupervisedSampler]) -> SilenceWarning:
    return SilenceWarning(samplers)


@pytest.fixture
def told() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_nothing_is_told_while_no_sampler_has_anything_to_do(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    assert silence.ends_at == math.inf
    samplers[0].send(0, LOOK)
    samplers[0].answer(0, Result([1]))
    assert silence.ends_at == math.inf
    clock.now += 1e6
    silence.look()
    assert told == []


def test_silent_samplers_are_named_after_a_minute_with_what_they_do(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    started = clock.now
    samplers[0].send(0, BUILD)
    samplers[2].send(1, RESET)
    samplers[2].send(2, LOOK)
    assert silence.ends_at == started + NOTICE_AFTER == started + 60.0
    clock.now = silence.ends_at - 0.001
    silence.look()
    assert told == []
    clock.now = silence.ends_at
    silence.look()
    assert [(warning.category, str(warning.message)) for warning in told] == [
        (
            SamplerWarning,
            "Waiting for 60 s for sampler 0 (building its environments), sampler 2 (resetting its environments). If a "
            "step of an environment may hang, pass step_timeout to have its sampler killed and replaced after that "
            "many seconds.",
        )
    ]


def test_sampler_that_acts_in_real_time_has_something_to_do(
    silence: SilenceWarning, samplers: list[SupervisedSampler], clock: Clock
) -> None:
    began = clock.now
    samplers[1].send(0, Drive(DriveOrder(1, InfoSelection(), 10)))
    samplers[1].answer(0, Result(None))
    assert silence.ends_at == began + NOTICE_AFTER
    clock.now += 50.0
    samplers[1].note_steps([ChunkReport(0, 0, None, None, 0.0, 0.0, run=1)])
    assert silence.ends_at == began + 50.0 + NOTICE_AFTER
    samplers[1].end_drive()
    assert silence.ends_at == math.inf


def test_it_is_told_once(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    samplers[0].send(0, LOOK)
    for _ in range(10):
        clock.now += 100
        silence.look()
        # There is nothing to wake up for any more.
        assert silence.ends_at == math.inf
    samplers[1].send(1, LOOK)
    clock.now += 100
    silence.look()
    assert len(told) == 1


def test_nothing_is_told_while_everybody_answers(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    numbers = count()
    asked = {sampler.sampler: next(numbers) for sampler in samplers}
    for sampler in samplers:
        sampler.send(asked[sampler.sampler], LOOK)
    for _ in range(20):
        clock.now += 59
        silence.look()
        for sampler in samplers:
            # There is always something left to do.
            number, asked[sampler.sampler] = asked[sampler.sampler], next(numbers)
            sampler.send(asked[sampler.sampler], LOOK)
            sampler.answer(number, Result([1]))
        assert silence.ends_at == clock.now + NOTICE_AFTER
    assert told == []


def test_only_those_that_are_silent_are_named(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    for sampler in samplers:
        sampler.send(2 * sampler.sampler, LOOK)
        sampler.send(2 * sampler.sampler + 1, EnvIsWrapped(gym.Wrapper, [0]))
    clock.now += 30
    samplers[1].answer(2, Result([1]))
    clock.now += 30
    silence.look()
    (warning,) = told
    attribute = "(reading an attribute of its environments)"
    assert f"for sampler 0 {attribute}, sampler 2 {attribute}. If" in str(warning.message)


def test_time_does_not_count_in_which_a_sampler_had_nothing_to_do(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    clock.now += 1000
    samplers[0].send(0, LOOK)
    assert silence.ends_at == clock.now + NOTICE_AFTER
    silence.look()
    assert told == []
    clock.now += 30
    # What is asked in the meantime does not make it a sampler that was heard of.
    samplers[0].send(1, LOOK)
    assert silence.ends_at == clock.now + NOTICE_AFTER - 30


def test_dead_samplers_are_not_waited_for_until_there_is_another_one(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    sampler = samplers[1]
    sampler.send(0, LOOK)
    clock.now += 59
    sampler.note_death(Death(1, "died"))
    assert silence.ends_at == math.inf
    sampler.due_at = clock.now
    clock.now += 59
    sampler.keep_up(clock.now)
    # It has a minute of its own.
    assert silence.ends_at == clock.now + NOTICE_AFTER
    silence.look()
    assert told == []
    clock.now += 60
    silence.look()
    assert [str(warning.message).partition(" (")[0] for warning in told] == ["Waiting for 60 s for sampler 1"]


def test_preparations_of_a_new_sampler_are_named(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    sampler = samplers[0]
    sampler.send(0, BUILD)
    sampler.answer(0, Result(None))
    sampler.send(1, LOOK)
    sampler.note_death(Death(0, "died"))
    sampler.due_at = clock.now
    sampler.keep_up(clock.now)
    clock.now += 60
    silence.look()
    (warning,) = told
    assert "sampler 0 (building its environments)" in str(warning.message)


def test_failures_are_a_sign_of_life(
    silence: SilenceWarning,
    samplers: list[SupervisedSampler],
    clock: Clock,
    told: list[warnings.WarningMessage],
) -> None:
    samplers[0].send(0, LOOK)
    samplers[0].send(1, LOOK)
    clock.now += 59
    samplers[0].answer(0, Failure("reading an attribute", "", None))
    assert silence.ends_at == clock.now + NOTICE_AFTER
