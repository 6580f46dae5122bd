"""Deaths of samplers: how many are too many, how long to wait, and that the user reads once what happened and where."""

import functools
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_walle.backends.death import Death, readable
from sb3_walle.backends.supervision import (
    DEFAULT_MAX_RESTARTS,
    RESTART_WINDOW,
    Restarts,
    Supervision,
    warn,
)
from sb3_walle.samplers.errors import MAX_TEXT, Failure, SamplerError, SamplerWarning, shortened

# What the user can choose


def test_by_default_samplers_are_replaced() -> None:
    assert Supervision() == Supervision("restart", max_restarts=None, step_timeout=None, close_timeout=None)


@pytest.mark.parametrize("wrong", ["Restart", "", "ignore", None, True])
def test_choice_that_does_not_exist_is_refused_with_those_that_do(wrong: Any) -> None:
    with pytest.raises(ValueError) as caught:
        Supervision(wrong)
    assert str(caught.value) == f"on_failure must be one of ('restart', 'raise'), got {wrong!r}"


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (1.0, TypeError), (math.inf, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_number_of_restarts_is_an_integer_of_at_least_0(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Supervision(max_restarts=wrong)
    assert str(caught.value) == f"max_restarts must be an integer of at least 0, or None, got {wrong!r}"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(0, ValueError), (-0.5, ValueError), (math.nan, ValueError), ("3", TypeError), (True, TypeError)],
)
def test_longest_time_of_a_step_is_a_number_above_0(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Supervision(step_timeout=wrong)
    assert str(caught.value) == f"step_timeout must be a number of seconds above 0, or None, got {wrong!r}"


@pytest.mark.parametrize(
    ("wrong", "error"), [(-0.5, ValueError), (math.nan, ValueError), ("3", TypeError), (True, TypeError)]
)
def test_longest_time_of_closing_is_a_number_of_at_least_0(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Supervision(close_timeout=wrong)
    assert str(caught.value) == f"close_timeout must be a number of seconds of at least 0, or None, got {wrong!r}"


@pytest.mark.parametrize("n_restarts", [None, 0, 1, 10**9, np.int64(3)])
@pytest.mark.parametrize("timeout", [None, 1e-9, 3, math.inf, np.float32(0.5), np.int16(2)])
def test_any_number_in_range_is_taken(n_restarts: Any, timeout: Any) -> None:
    chosen = Supervision("raise", n_restarts, timeout)
    assert (chosen.max_restarts, chosen.step_timeout) == (n_restarts, timeout)


# Restarts


class Clock:
    """Shows the time that it was set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings that a user sees without filters of her own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield caught


@pytest.fixture
def unlimited(clock: Clock) -> Restarts:
    return Restarts(Supervision(max_restarts=10_000), 3, clock)


def killed(sampler: int = 0) -> Death:
    return Death(sampler, "was killed by signal 9 (SIGKILL) while collecting experience")


def failed(message: str, line: int = 7, sampler: int = 0, error: type[Exception] = ArithmeticError) -> Death:
    """The loss of a sampler whose environment has raised something in some line."""
    try:
        # As deep as that line: each has a traceback of its own.
        exec("\n" * (line - 1) + f"raise {error.__name__}({message!r})", {})
    except Exception as raised:
        failure = Failure.of(raised, "collecting experience")
    return Death(sampler, "failed while collecting experience", failure.traceback, failure)


def crashed(*frames: str, sampler: int = 0) -> Death:
    """The loss of a sampler whose interpreter could still write down where it was."""
    dump = "\n".join(["Most recent call first:", *(f'  File "{frame}", line 1 in step' for frame in frames)])
    return Death(sampler, "was killed by signal 11 (SIGSEGV) while collecting experience", dump)


def test_first_restart_follows_at_once_and_further_ones_later_and_later(
    unlimited: Restarts, told: list[warnings.WarningMessage]
) -> None:
    assert [unlimited.after(killed()) for _ in range(8)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    # That of another sampler has nothing to do with it.
    assert unlimited.after(killed(1)) == 0.0


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_delay_stays_the_same_however_often_a_sampler_has_died(unlimited: Restarts) -> None:
    assert {unlimited.after(killed()) for _ in range(2_000)} == {0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0}


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_sampler_that_has_worked_is_replaced_at_once_again(unlimited: Restarts) -> None:
    for sampler in (0, 0, 0, 1, 1):
        unlimited.after(killed(sampler))
    unlimited.has_worked(0)
    assert [unlimited.after(killed()) for _ in range(3)] == [0.0, 0.1, 0.2]
    assert unlimited.after(killed(1)) == 0.2


@pytest.mark.parametrize(("n_samplers", "limit"), [(1, 10), (10, 10), (11, 11), (100, 100)])
def test_by_default_every_sampler_may_die_once(
    n_samplers: int, limit: int, clock: Clock, told: list[warnings.WarningMessage]
) -> None:
    restarts = Restarts(Supervision(), n_samplers, clock)
    for number in range(limit):
        restarts.after(killed(number % n_samplers))
    with pytest.raises(SamplerError, match=f"more often than max_restarts={limit} times within 10 minutes"):
        restarts.after(killed())
    assert restarts.n_restarts == len(told) == limit >= DEFAULT_MAX_RESTARTS


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_restarts_of_all_samplers_count_together_and_for_ten_minutes(clock: Clock) -> None:
    restarts = Restarts(Supervision(max_restarts=2), 3, clock)
    restarts.after(killed(0))
    clock.now += 1
    restarts.after(killed(1))
    clock.now += RESTART_WINDOW - 1.5
    with pytest.raises(SamplerError):
        restarts.after(killed(2))
    clock.now += 0.5
    # The first one is forgotten, and the one that was an error was no restart.
    restarts.after(killed(2))
    with pytest.raises(SamplerError):
        restarts.after(killed(2))
    assert restarts.n_restarts == 3


@given(
    st.lists(st.sampled_from([0.0, 0.1, 150.0, 200.0, 400.0, RESTART_WINDOW]), max_size=40),
    st.integers(0, 4),
)
def test_any_sequence_of_deaths_against_a_list(pauses: list[float], limit: int) -> None:
    clock, accepted = Clock(), list[float]()
    restarts = Restarts(Supervision(max_restarts=limit), 1, clock)
    for pause in pauses:
        clock.now += pause
        is_one_too_many = sum(clock.now - time < RESTART_WINDOW for time in accepted) >= limit
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                restarts.after(killed())
            except SamplerError:
                assert is_one_too_many
                assert caught == []
            else:
                assert not is_one_too_many
                assert [warning.category for warning in caught] == [SamplerWarning]
                accepted.append(clock.now)
    assert restarts.n_restarts == len(accepted)


@pytest.mark.parametrize("supervision", [Supervision("raise"), Supervision("raise", 5), Supervision(max_restarts=0)])
def test_first_death_is_an_error_where_there_are_no_restarts(
    supervision: Supervision, told: list[warnings.WarningMessage]
) -> None:
    restarts = Restarts(supervision, 2)
    for loss in (failed("it diverged", sampler=1), killed(1)):
        with pytest.raises(SamplerError) as caught:
            restarts.after(loss)
        # In the words of the death alone: a limit that was not reached would only confuse.
        assert str(caught.value) == loss.with_traceback()
    assert (restarts.n_restarts, told) == (0, [])


def test_error_has_the_first_and_the_last_death_with_their_tracebacks(
    clock: Clock, told: list[warnings.WarningMessage]
) -> None:
    restarts = Restarts(Supervision(max_restarts=2), 3, clock)
    restarts.after(failed("at first", line=3, sampler=1))
    restarts.after(failed("then", line=5))
    with pytest.raises(SamplerError) as caught:
        restarts.after(failed("at last", line=8, sampler=2, error=LookupError))
    text = str(caught.value)
    assert text.startswith(
        "Samplers died more often than max_restarts=2 times within 10 minutes. The first death: Samp"
    )
    first, last = text.split("The last death: ")
    assert "Sampler 1 failed while collecting experience. Its traceback:\n\nTraceback" in first
    assert "line 3" in first and "ArithmeticError: at first" in first
    assert "Sampler 2 failed while collecting experience. Its traceback:\n\nTraceback" in last
    assert "line 8" in last and "LookupError: at last" in last
    assert "then" not in text
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_error_does_not_repeat_the_traceback_of_the_same_place(clock: Clock) -> None:
    restarts = Restarts(Supervision(max_restarts=1), 3, clock)
    restarts.after(failed("x is 1"))
    with pytest.raises(SamplerError) as caught:
        restarts.after(failed("x is 2", sampler=2))
    text = str(caught.value)
    assert text.count("Traceback (most recent call last)") == 1
    assert text.endswith("in the same place as the one before: ArithmeticError: x is 2")


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_cause_of_the_error_is_the_last_exception_or_none(clock: Clock) -> None:
    restarts = Restarts(Supervision(max_restarts=1), 1, clock)
    restarts.after(failed("at first"))
    with pytest.raises(SamplerError) as caught:
        restarts.after(killed())
    assert caught.value.__cause__ is None


# Deaths before anything was finished


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(
    "deaths",
    [
        [failed("x is 1"), failed("x is 2", sampler=1)],
        [failed("x is 1"), killed(1), failed("no", line=3, sampler=1), failed("x is 2\nmore", sampler=2)],
        [crashed("physics.py"), crashed("physics.py", sampler=1)],
    ],
    ids=["the same exception", "others in between", "the same crash"],
)
def test_second_death_of_the_same_is_an_error_while_none_has_finished_anything(
    deaths: list[Death], unlimited: Restarts
) -> None:
    *first, last = deaths
    for loss in first:
        unlimited.after(loss)
    with pytest.raises(SamplerError) as caught:
        unlimited.after(last)
    assert str(caught.value).startswith(last.with_traceback())
    assert "another restart would not help" in str(caught.value)
    assert unlimited.n_restarts == len(first)
    # Once a sampler has finished something, the number of restarts decides, until something new begins.
    unlimited.has_worked(2)
    for _ in range(3):
        unlimited.after(last)
    unlimited.begin_anew()
    unlimited.after(last)
    with pytest.raises(SamplerError, match="another restart would not help"):
        unlimited.after(last)


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(
    "deaths",
    [
        [killed(), killed()],
        [failed("x"), failed("x", line=8)],
        [failed("x"), failed("x", error=LookupError)],
        [failed("x"), crashed("physics.py")],
        [crashed("a.py"), crashed("b.py")],
        [replace(crashed("a.py"), hung=True)] * 2,
    ],
    ids=["no place", "another line", "another class", "a crash", "another crash", "slow steps"],
)
def test_other_deaths_are_left_to_the_number_of_restarts(deaths: list[Death], unlimited: Restarts) -> None:
    for loss in deaths:
        unlimited.after(loss)
    assert unlimited.n_restarts == len(deaths)


# Long texts


def test_long_texts_are_cut_in_warnings_and_errors_and_whole_in_an_attribute(
    clock: Clock, told: list[warnings.WarningMessage]
) -> None:
    text = "begin " + "x" * 1_000_000 + " end"
    restarts = Restarts(Supervision(max_restarts=2), 3, clock)
    restarts.after(failed(text, sampler=0))
    restarts.has_worked(0)
    restarts.after(failed(text, sampler=1))
    with pytest.raises(SamplerError) as caught:
        restarts.after(failed(text, line=9, sampler=2))
    error = caught.value
    for shown in (*(str(warning.message) for warning in told), str(error), str(error.__cause__)):
        assert len(shown) < 3 * MAX_TEXT
        assert "characters are left out" in shown
        assert " end" in shown
    assert isinstance(error.__cause__, ArithmeticError)
    assert error.full_message.count(text) == 2
    assert pickle.loads(pickle.dumps(error)).full_message == error.full_message
    assert error.full_message.startswith("Samplers died more often than max_restarts=2")


@given(st.text(max_size=3 * MAX_TEXT) | st.integers(0, 3 * MAX_TEXT).map(lambda length: "x" * length))
def test_any_text_is_short_enough_and_begins_and_ends_as_it_did(text: str) -> None:
    short = shortened(text)
    assert len(short) < MAX_TEXT + 100
    assert (short == text) == (len(text) <= MAX_TEXT)
    assert text.startswith(short[: MAX_TEXT // 2]) and text.endswith(short[-MAX_TEXT // 2 :])


# Warnings


def test_every_death_is_told_once_with_what_is_left_of_the_limit(
    clock: Clock, told: list[warnings.WarningMessage]
) -> None:
    restarts = Restarts(Supervision(max_restarts=4), 3, clock)
    restarts.has_worked(0)
    losses = [failed("x is 1"), failed("x is 2", sampler=1), crashed("physics.py", sampler=2)]
    for loss in losses:
        restarts.after(loss)
    texts = [str(warning.message) for warning in told]
    assert texts == [
        f"{losses[0].with_traceback()}\nRestart 1 of at most 4 within 10 minutes.",
        "Sampler 1 failed while collecting experience, in the same place as the one before: ArithmeticError: x is 2\n"
        "Restart 2 of at most 4 within 10 minutes.",
        f"{losses[2].with_traceback()}\nRestart 3 of at most 4 within 10 minutes.",
    ]
    assert {warning.category for warning in told} == {SamplerWarning}


def test_death_is_told_also_if_another_was_told_in_the_same_words_long_ago(
    clock: Clock, told: list[warnings.WarningMessage]
) -> None:
    restarts = Restarts(Supervision(), 1, clock)
    for _ in range(3):
        restarts.after(killed())
        clock.now += 2 * RESTART_WINDOW
    assert [str(warning.message).splitlines()[1] for warning in told] == [
        "Restart 1 of at most 10 within 10 minutes."
    ] * 3


def test_warnings_may_be_made_errors(clock: Clock) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplerWarning)
        with pytest.raises(SamplerWarning, match="was killed by signal 9"):
            Restarts(Supervision(), 1, clock).after(killed())


def module_calling(name: str, function: Callable[[], object]) -> Callable[[], object]:
    """A function of a module of that name, which calls another one."""
    module: dict[str, Any] = {"__name__": name, "function": function}
    exec(compile("def call():\n    return function()", f"{name}.py", "exec"), module)
    return module["call"]


def called_through(*names: str) -> Callable[[], object]:
    """A function that warns when it is called, through modules of these names, the first of which is called first."""
    function: Callable[[], object] = functools.partial(warn, "something has happened")
    for name in reversed(names):
        function = module_calling(name, function)
    return function


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["sb3_walle.envs.vec_env"],
        ["stable_baselines3.ppo.ppo", "sb3_walle.on_policy.on_policy_mixin", "sb3_walle.backends.client"],
        ["sb3_contrib.ars.ars", "sb3_walle"],
    ],
)
def test_warning_points_at_the_line_of_the_users_program(names: list[str], told: list[warnings.WarningMessage]) -> None:
    function = called_through(*names)
    line = sys._getframe().f_lineno + 1
    function()
    assert [(warning.filename, warning.lineno) for warning in told] == [(__file__, line)]


@pytest.mark.parametrize("users", ["callbacks", "sb3_walle_extras", "stable_baselines3_zoo.callbacks"])
def test_warning_points_at_the_users_callback_inside_of_learn(users: str, told: list[warnings.WarningMessage]) -> None:
    called_through("sb3_walle.algorithms.ppo", users, "sb3_walle.envs.vec_env", "sb3_walle.backends.client")()
    assert [(warning.filename, warning.lineno) for warning in told] == [(f"{users}.py", 2)]


# What is said about a death


def test_loss_is_told_with_its_traceback_if_there_is_one() -> None:
    assert str(killed(3)) == "Sampler 3 was killed by signal 9 (SIGKILL) while collecting experience"
    assert killed(3).with_traceback() == f"{killed(3)}."
    assert Death(1, "died", "somewhere\n\n").with_traceback() == "Sampler 1 died. Its traceback:\n\nsomewhere\n"


def test_error_of_a_loss_has_the_exception_for_a_cause() -> None:
    error = failed("it diverged", sampler=2).to_error()
    assert str(error).startswith("Sampler 2 failed while collecting experience. Its traceback:\n\nTraceback")
    assert "ArithmeticError: it diverged" in str(error)
    assert isinstance(error.__cause__, ArithmeticError) and error.__cause__.args == ("it diverged",)
    assert killed().to_error().__cause__ is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (failed("x"), failed("x", line=8)),
        (failed("x"), crashed("physics.py")),
        (crashed("physics.py", "step.py"), crashed("physics.py", "reset.py")),
        (crashed("physics.py"), killed()),
        (killed(), crashed("physics.py")),
        (killed(), killed()),
        (None, failed("x")),
    ],
)
def test_death_in_another_place_is_told_in_full(first: Death | None, second: Death) -> None:
    assert second.after(first) == second.with_traceback()


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (failed("x is 1"), failed("x is 2", sampler=1), "ArithmeticError: x is 2"),
        # Another class is another message; the place is the same.
        (failed("x is 1"), failed("x is 2", sampler=1, error=LookupError), "LookupError: x is 2"),
        (crashed("a.py", "b.py"), crashed("a.py", "b.py", sampler=1), 'File "a.py", line 1 in step'),
    ],
)
def test_death_in_the_same_place_is_told_in_one_line(first: Death, second: Death, told: str) -> None:
    assert second.after(first) == f"{second}, in the same place as the one before: {told}"


@pytest.mark.parametrize("text", ["It could not be started: [Errno 11] no process is left", "one\ntwo"])
def test_text_that_is_no_traceback_can_be_told_twice(text: str) -> None:
    loss = Death(0, "did not start", text)
    assert loss.after(loss) == f"{loss}, in the same place as the one before: {text.splitlines()[-1]}"


# What a crashing interpreter writes down

CRASHING = """
import ctypes, faulthandler, os, sys
from sb3_walle.samplers.requests import Request, answer

class Crash(Request):
    summary = "crashing"

    def run(self, sampler):
        return step()

def step():
    {crash}

def main():
    answer(None, Crash())

faulthandler.enable(sys.stderr, all_threads=False)
main()
"""
CRASHES = {"Segmentation fault": "ctypes.string_at(0)", "Aborted": "os.abort()"}


@pytest.fixture(scope="module", params=CRASHES)
def dump(request: pytest.FixtureRequest) -> str:
    """What the interpreter of a sampler wrote when its environment crashed."""
    process = subprocess.run(
        [sys.executable, "-c", CRASHING.format(crash=CRASHES[request.param])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode < 0
    # As the process that samplers are forked from passes it on.
    text = process.stderr.strip()
    assert text.startswith(f"Fatal Python error: {request.param}")
    return text


def test_dump_tells_where_the_environment_was_and_nothing_of_what_is_around_it(dump: str) -> None:
    heading, *frames = readable(dump).splitlines()
    assert heading == "Most recent call first:"
    names = [frame.rpartition(" in ")[2] for frame in frames]
    assert [name for name in names if name != "string_at"] == ["step", "run"]
    assert all(frame in dump for frame in frames)


def test_two_crashes_in_the_same_place_are_told_in_one_line(dump: str) -> None:
    first, second = (Death(sampler, "was killed by signal 11 (SIGSEGV)", readable(dump)) for sampler in (0, 1))
    innermost = readable(dump).splitlines()[1].strip()
    assert second.after(first) == f"{second}, in the same place as the one before: {innermost}"


def test_dump_from_outside_of_an_environment_is_told_whole_but_for_its_heading(dump: str) -> None:
    outside = "\n".join(line for line in dump.splitlines() if "requests.py" not in line)
    frames = [line for line in outside.splitlines() if line.startswith("  File ")]
    assert readable(outside).splitlines() == ["Most recent call first:", *frames]


def test_dump_without_an_environment_in_it_stays_as_it_is(dump: str) -> None:
    lines = dump.splitlines()
    innermost = next(number for number, line in enumerate(lines) if "requests.py" in line)
    without = "\n".join([*lines[:2], *lines[innermost:]])
    assert readable(without) == without


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It could not be started: [Errno 11] no process is left",
        "terminate called after throwing an instance of 'int'",
        'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nKeyboardInterrupt',
        "Fatal Python error: Aborted\n\n<no Python frame>",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert readable(text) == text


@given(st.text() | st.lists(st.sampled_from(["Fatal Python error", '  File "a.py"', "x", ""])).map("\n".join))
def test_any_text_is_told(text: str) -> None:
    told = readable(text)
    assert told == text or set(told.splitlines()[1:]) <= set(text.splitlines())
    loss = Death(0, "died", told)
    assert loss.after(loss).startswith("Sampler 0 died")
