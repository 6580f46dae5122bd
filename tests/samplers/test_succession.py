"""A sampler that takes the place of a dead one is told all that lasts, the last of each, with fresh randomness."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.samplers.actors.protocol import Actor
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.requests import (
    BuildEnvs,
    CloseEnvs,
    Collect,
    Configure,
    EnvIsWrapped,
    EnvMethod,
    GetAttr,
    Request,
    Reset,
    Result,
    SetAttr,
    Step,
    answer,
)
from sb3_walle.samplers.sampler import CollectionSettings, Sampler
from sb3_walle.samplers.succession import SetupRequests
from sb3_walle.samplers.tickets import ChunkReport, Ticket
from sb3_walle.transport.chunk import Seal
from sb3_walle.transport.layout import Field
from sb3_walle.transport.ports import SamplerQueues


@dataclass(frozen=True)
class CountingActor:
    """An actor's specification that knows how many samplers have died before."""

    n_dead: int = 0
    weight_names: tuple[str, ...] = ()

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        return ()

    def for_successor(self, incarnation: int) -> "CountingActor":
        return replace(self, n_dead=incarnation)

    def build(self, n_envs: int) -> Actor:
        raise NotImplementedError


class Loud(gym.Env):
    """Shows a random number, prints something when it is built, and can be told its gravity and its mass."""

    observation_space = spaces.Box(0, 2**31 - 1, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        # As a native library would.
        os.write(1, b"an old simulator\n")
        self.gravity = 9.81
        self.options: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.options.append(options)
        return self.np_random.integers(0, 2**31 - 1, (1,)), {}

    def set_gravity(self, value: float, unit: str) -> None:
        self.gravity = value

    def leave_earth(self, value: float, unit: str) -> None:
        self.gravity = value


class NoQueues:
    """Stands for the samplers' end of queues, which no sampler opens here."""

    def open(self, sampler: int) -> SamplerQueues:
        raise NotImplementedError


BUILD = BuildEnvs([Loud, Loud], (), show_warnings=True)
CONFIGURE = Configure(
    CollectionSettings(
        CountingActor(),
        NoQueues(),
        squash_output=False,
    )
)

N_STEPS = 4
COLLECT = Collect(Ticket(0, 0, 0, N_STEPS, None, None, InfoSelection()))
REPORT = ChunkReport(0, 0, Seal(0, 0, N_STEPS), None, 0.0, 0.0)
STEP = Step(np.zeros(1))

seeds_of_resets = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8)


def set_attr(name: str, value: Any, indices: Sequence[int] = (0,)) -> SetAttr:
    return SetAttr(name, value, indices)


def method(name: str, value: Any = None, indices: Sequence[int] = (0,)) -> EnvMethod:
    return EnvMethod(name, (value,), {"unit": "SI"}, indices)


def reset(*seeds: int | None, **options: Any) -> Reset:
    return Reset(seeds, [options] * len(seeds))


def told(*requests: Request, incarnation: int = 1) -> list[Request]:
    """What a successor is told after those before it have carried out these requests."""
    briefing = SetupRequests()
    for request in requests:
        briefing.note(request, REPORT if isinstance(request, Collect) else None)
    return list(briefing.for_successor(incarnation))


def seeds_told(*requests: Request, incarnation: int = 1) -> list[int | None]:
    (request,) = [request for request in told(*requests, incarnation=incarnation) if isinstance(request, Reset)]
    return list(request.seeds)


def test_successor_is_told_nothing_where_nothing_was_done() -> None:
    assert told() == []


@settings(deadline=None)
@given(st.permutations([BUILD, set_attr("mass", 1), method("set_gravity"), reset(3, 4), CONFIGURE]))
def test_environments_are_built_then_set_up_then_reset_before_it_gets_ready_to_collect(requests: list[Request]) -> None:
    setters = [type(request) for request in requests if isinstance(request, SetAttr | EnvMethod)]
    assert [type(request) for request in told(*requests)] == [BuildEnvs, *setters, Reset, Configure]


@pytest.mark.parametrize("incarnation", [1, 2, 50])
def test_warnings_of_building_are_not_shown_again(incarnation: int) -> None:
    assert told(BUILD, incarnation=incarnation) == [replace(BUILD, show_warnings=False, incarnation=incarnation)]


@pytest.mark.parametrize("kind", [set_attr, method])
def test_of_what_was_set_more_than_once_the_last_counts_in_each_environment(kind: Any) -> None:
    first, second, other = kind("set_x", 1, (0, 1, 2)), kind("set_x", 2, (1,)), kind("set_y", 3, (0,))
    assert told(first, second, other) == [
        replace(first, indices=[0, 2]),
        replace(second, indices=[1]),
        replace(other, indices=[0]),
    ]
    # Setting it again is the latest that was done, also where it had been set early.
    again = kind("set_x", 4, (2, 0))
    assert told(first, second, other, again) == [
        replace(second, indices=[1]),
        replace(other, indices=[0]),
        replace(again, indices=[2, 0]),
    ]


def test_attribute_and_method_of_the_same_name_do_not_replace_each_other() -> None:
    requests = [set_attr("set_x", 1), method("set_x", 2)]
    assert told(*requests) == [replace(request, indices=[0]) for request in requests]


@pytest.mark.parametrize("name", ["render", "reset", "settle", "get_set_x", "_set_x", "Set_x"])
def test_methods_that_set_nothing_are_not_called_again(name: str) -> None:
    assert told(method("set_x", 1), method(name, 2)) == [replace(method("set_x", 1), indices=[0])]


def test_what_leaves_nothing_behind_is_not_done_again() -> None:
    assert (
        told(
            GetAttr("x", [0]),
            EnvIsWrapped(gym.Wrapper, [0]),
            STEP,
            COLLECT,
            reset(None, None),
            CloseEnvs(),
        )
        == []
    )


def test_steps_are_counted_from_where_it_got_ready_to_collect() -> None:
    def steps_told(*requests: Request) -> int:
        (request,) = told(*requests)
        assert isinstance(request, Configure)
        return request.n_steps

    assert steps_told(STEP, COLLECT, CONFIGURE, COLLECT, STEP, COLLECT) == 2 * N_STEPS + 1
    assert steps_told(CONFIGURE, COLLECT, CONFIGURE) == 0


def test_last_reset_with_seeds_counts_without_its_options() -> None:
    (request,) = told(reset(1, 2, course="hard"), reset(3, 4, course="easy"), reset(None, None, course="last"))
    assert isinstance(request, Reset)
    assert list(request.options) == [{}, {}]
    assert list(request.seeds) == seeds_told(reset(3, 4))


@given(seeds_of_resets)
def test_seeds_of_successors_are_a_function_of_the_seeds_before_and_of_the_incarnation(seeds: list[int]) -> None:
    for incarnation in (1, 2):
        request = reset(*seeds)
        assert seeds_told(request, incarnation=incarnation) == seeds_told(request, incarnation=incarnation)
        # Each environment's seed depends on its own alone.
        assert seeds_told(request, incarnation=incarnation) == [
            seeds_told(reset(seed), incarnation=incarnation)[0] for seed in seeds
        ]


@given(st.integers(0, 2**31 - 1), st.integers(1, 10))
def test_no_two_environments_and_incarnations_have_the_same_seed(first: int, n_envs: int) -> None:
    # Seeds of neighbours differ by one, as in SB3.
    request = reset(*range(first, first + n_envs))
    seeds = [*request.seeds]
    for incarnation in range(1, 20):
        seeds += seeds_told(request, incarnation=incarnation)
    assert len(set(seeds)) == len(seeds) == 20 * n_envs
    # What NumPy and PyTorch take for a seed.
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_environment_that_was_given_no_seed_is_given_none() -> None:
    first, second, third = seeds_told(reset(5, None, 5))
    assert second is None
    # The same seeds lead to the same seeds, as before.
    assert first == third not in (5, None)


def test_large_seeds_and_those_of_numpy_are_taken() -> None:
    large, small, of_numpy = seeds_told(Reset((2**63, 7, np.int64(7)), [{}] * 3))
    assert small == of_numpy
    assert type(large) is int and 0 <= large < 2**32


def test_actors_of_successors_have_random_streams_of_their_own() -> None:
    for incarnation in (1, 2, 3):
        (request,) = told(CONFIGURE, incarnation=incarnation)
        assert isinstance(request, Configure)
        # Not of a successor of a successor: the incarnation says it all.
        assert request.settings.actor == CountingActor(n_dead=incarnation)
        assert replace(request.settings, actor=CONFIGURE.settings.actor) == CONFIGURE.settings


def test_last_settings_for_collecting_count() -> None:
    squashing = replace(CONFIGURE, settings=replace(CONFIGURE.settings, squash_output=True))
    (request,) = told(CONFIGURE, squashing)
    assert isinstance(request, Configure)
    assert request.settings.squash_output


def test_what_is_told_does_not_change_what_the_next_one_is_told() -> None:
    briefing = SetupRequests()
    for request in (BUILD, set_attr("mass", 1, (0, 1)), reset(3, 4), CONFIGURE):
        briefing.note(request)
    before = list(briefing.for_successor(2))
    list(briefing.for_successor(1))
    assert list(briefing.for_successor(2)) == before


NAMES = ("x", "y")
setters = st.lists(
    st.builds(
        lambda is_method, name, value, indices: (
            method(f"set_{name}", value, indices) if is_method else set_attr(name, value, indices)
        ),
        st.booleans(),
        st.sampled_from(NAMES),
        st.integers(),
        st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    ),
    max_size=12,
)


def after(requests: Sequence[Request]) -> dict[tuple[int, str], Any]:
    """What environments look like in which the method ``set_x`` sets what is also the attribute ``x``."""
    values = {}
    for request in requests:
        assert isinstance(request, SetAttr | EnvMethod)
        value = request.value if isinstance(request, SetAttr) else request.args[0]
        for env in request.indices:
            values[env, request.name.removeprefix("set_")] = value
    return values


@given(setters)
def test_environments_end_up_the_same_by_fewer_requests(requests: list[Request]) -> None:
    short = told(*requests)
    assert after(short) == after(requests)
    assert len(short) <= 2 * len(NAMES) * 3


def carry_out(requests: Sequence[Request]) -> Sampler:
    sampler = Sampler(0)
    for request in requests:
        assert isinstance(answer(sampler, request), Result), request
    return sampler


def test_successor_of_a_real_sampler_has_what_was_set_and_other_random_numbers(
    capfd: pytest.CaptureFixture[str],
) -> None:
    requests = [
        BUILD,
        set_attr("mass", 1.0, (0, 1)),
        method("set_gravity", 3.7, (1,)),
        set_attr("mass", 2.0, (0,)),
        reset(0, 1, course="hard"),
        method("leave_earth", 0.0, (0, 1)),
    ]
    first = carry_out(requests)
    assert capfd.readouterr().out.count("an old simulator") == 2
    successors = [carry_out(told(*requests, incarnation=incarnation)) for incarnation in (1, 2, 2)]
    assert capfd.readouterr().out == ""
    for successor in successors:
        assert successor.envs.get_attr("mass", (0, 1)) == [2.0, 1.0]
        assert successor.envs.get_attr("gravity", (0, 1)) == [9.81, 3.7]
        assert successor.envs.get_attr("options", (0, 1)) == [[None], [None]]
    shown = [sampler.envs.observations for sampler in (first, *successors)]
    assert len(np.unique(np.concatenate(shown[:3]))) == 6
    np.testing.assert_array_equal(shown[2], shown[3])
