"""
Whatever becomes of samplers: every request that somebody waits for is answered once, every chunk that was asked for is
reported once and in its order, and a new sampler is told what the ones before it were told before it gets to work.
"""

import contextlib
import functools
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import count
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sb3_walle.backends.client import LONGEST_PAUSE, SamplerClient
from sb3_walle.backends.place import END_TIMEOUT
from sb3_walle.backends.protocol import UNREADABLE, Death, Delivery, Event
from sb3_walle.backends.supervision import RESTART_WINDOW, Restarts, Supervision
from sb3_walle.samplers.actors.protocol import Actor
from sb3_walle.samplers.errors import CLOSED, Failure, SamplerError, SamplerWarning
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.requests import (
    BuildEnvs,
    Collect,
    Configure,
    EnvIsWrapped,
    EnvMethod,
    GetAttr,
    Reply,
    Request,
    Reset,
    Result,
    SetAttr,
    Step,
)
from sb3_walle.samplers.sampler import ChunkReport, CollectionSettings, Ticket
from sb3_walle.transport.experience_queue import ExperienceGeometry
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.memory import SharedMemory

T = TypeVar("T")

# Samplers of which one can say what becomes of them


class Clock:
    """Stands for the module ``time``. Time passes when somebody waits, and at no other time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Fate(Enum):
    """What can become of a sampler, or of whoever waits."""

    #: it carries out a request; or ends, if the last one has failed in such a way that it has to
    WORK = auto()
    #: the request that it carries out raises an exception
    FAIL = auto()
    #: the request, or the reply to it, cannot be unpickled
    GARBLE = auto()
    #: it dies, whatever it is doing
    DIE = auto()
    #: it never comes back from the step that it is making, or from closing its environments
    HANG = auto()
    #: what it has sent arrives
    ARRIVE = auto()
    #: nothing arrives for as long as one is ready to wait
    WAIT = auto()
    #: whoever waits presses Ctrl-C
    INTERRUPT = auto()


class FakeSampler:
    """A sampler that does what it is said to."""

    def __init__(self) -> None:
        self.mailbox: deque[tuple[int, Request]] = deque()
        self.on_the_way: deque[tuple[Request | None, Event]] = deque()
        self.is_alive, self.is_ending, self.is_stuck = True, False, False
        #: since when it has been making a step
        self.stepping_since = math.inf


class FakeBackend:
    """
    A backend that keeps to the protocol, with samplers to which happens what is in ``fates``, in this order. When it is
    empty, all of them carry out everything.

    :param n_samplers: number of samplers
    :param room: how many requests a mailbox can hold
    :param clock: the time
    :param watches_steps: whether it is known how long steps take
    :param model: told what happens
    """

    def __init__(self, n_samplers: int, room: int, clock: Clock, watches_steps: bool, model: "Model") -> None:
        self.n_samplers, self.n_processes = n_samplers, 0
        self.fates: deque[tuple[int, Fate]] = deque()
        self.samplers = [FakeSampler() for _ in range(n_samplers)]
        #: what was sent to all samplers of each place, the present one last
        self.sent: list[list[list[Request]]] = [[[]] for _ in range(n_samplers)]
        self.kills: list[tuple[int, float]] = []
        self.fails_to_start: BaseException | None = None
        self.is_closed = False
        self._room, self._clock, self._watches_steps, self._model = room, clock, watches_steps, model
        self._causes = count()
        self._n_idle = 0

    def send(self, sampler: int, number: int, request: Request) -> bool:
        self._check_open()
        if isinstance(request, EnvMethod) and request.name == "unpicklable":
            raise TypeError("cannot pickle it")
        receiver = self.samplers[sampler]
        if receiver.is_alive:
            if len(receiver.mailbox) >= self._room:
                return False
            receiver.mailbox.append((number, request))
        self.sent[sampler][-1].append(request)
        self._model.sent(sampler, request)
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        self._check_open()
        assert timeout is not None and 0 <= timeout <= LONGEST_PAUSE
        while self.fates:
            index, fate = self.fates.popleft()
            if fate is Fate.INTERRUPT:
                raise KeyboardInterrupt
            if fate is Fate.WAIT:
                self._clock.now += timeout
                return None
            if fate is not Fate.ARRIVE:
                self._befall(index, fate)
            elif self.samplers[index].on_the_way:
                return self._arrival(index)
        for index in range(self.n_samplers):
            self._befall(index, Fate.WORK)
        for index, sampler in enumerate(self.samplers):
            if sampler.on_the_way:
                return self._arrival(index)
        self._clock.now += timeout
        self._n_idle += 1
        assert self._n_idle < 1000, "it would wait for ever"
        return None

    def seconds_at_step(self, sampler: int) -> float:
        return max(0.0, self._clock.now - self.samplers[sampler].stepping_since)

    def kill(self, sampler: int) -> None:
        self.kills.append((sampler, self._clock.now))
        self._die(sampler, "was killed")

    def start(self, sampler: int) -> None:
        self._check_open()
        assert not self.samplers[sampler].is_alive and not self.samplers[sampler].on_the_way
        if self.fails_to_start is not None:
            error, self.fails_to_start = self.fails_to_start, None
            raise error
        self.samplers[sampler] = FakeSampler()
        self.sent[sampler].append([])
        self._model.started(sampler)

    def close(self) -> None:
        self.is_closed = True

    def _check_open(self) -> None:
        if self.is_closed:
            raise SamplerError(CLOSED)

    def _arrival(self, index: int) -> Event:
        self._n_idle = 0
        request, event = self.samplers[index].on_the_way.popleft()
        if isinstance(event, Death):
            self._model.died(event)
        else:
            assert request is not None
            self._model.answered(index, request, event.reply)
        return event

    def _befall(self, index: int, fate: Fate) -> None:
        """Something becomes of a sampler, if it can."""
        sampler = self.samplers[index]
        if not sampler.is_alive:
            return
        if fate is Fate.DIE:
            self._die(index, f"died of cause {next(self._causes)}")
        elif sampler.is_stuck:
            return
        elif sampler.is_ending:
            if fate is Fate.HANG:
                sampler.is_stuck = True
            else:
                self._die(index, "ended")
        elif sampler.mailbox:
            if fate is not Fate.HANG:
                self._carry_out(index, fate)
            elif self._watches_steps:
                sampler.is_stuck, sampler.stepping_since = True, self._clock.now

    def _carry_out(self, index: int, fate: Fate) -> None:
        sampler = self.samplers[index]
        number, request = sampler.mailbox.popleft()
        reply: Reply = Result(result_of(request))
        if fate is not Fate.WORK:
            reply = Failure(request.summary, f"Traceback\n  line\nValueError: cause {next(self._causes)}.\n", None)
        if fate is Fate.GARBLE:
            number = UNREADABLE
        else:
            sampler.is_ending = isinstance(reply, Failure) and request.failure_ends_sampler
        sampler.on_the_way.append((request, Delivery(index, number, reply)))

    def _die(self, index: int, how: str) -> None:
        sampler = self.samplers[index]
        if sampler.is_alive:
            sampler.is_alive, sampler.stepping_since = False, math.inf
            sampler.mailbox.clear()
            sampler.on_the_way.append((None, Death(index, f"{how}.")))


def result_of(request: Request) -> Any:
    """What a sampler answers: something by which one sees what it was asked."""
    if isinstance(request, Collect):
        return ChunkReport(request.ticket.number, request.ticket.slot, None, None, 0.0)
    return request


# What has to follow from that


class Reseeded(NamedTuple):
    """Stands for a reset like this one with seeds that were not used before."""

    reset: Reset


@dataclass
class ModelPlace:
    """
    What is known of the samplers in one place.

    :param open: what was asked and not answered, in its order
    :param to_send: what the present sampler still has to be sent, in this order
    :param seeds: all that were used
    :param failure: of which the present sampler is going to die
    """

    open: list[Request] = field(default_factory=list)
    to_send: deque[Request | Reseeded] = field(default_factory=deque)
    build: BuildEnvs | None = None
    setters: dict[tuple[type, str, int], Request] = field(default_factory=dict)
    reset: Reset | None = None
    configure: Configure | None = None
    seeds: set[int | None] = field(default_factory=set)
    failure: str | None = None
    n_successors: int = 0
    n_deaths_in_a_row: int = 0
    is_empty: bool = False
    is_abandoned: bool = False
    next_start: float = 0.0


class Model:
    """
    What samplers are to be sent and what their owner is to be told: nothing but lists and dictionaries.

    :param n_samplers: number of samplers
    :param supervision: what happens when samplers die
    :param clock: the time
    """

    def __init__(self, n_samplers: int, supervision: Supervision, clock: Clock) -> None:
        self.supervision, self.clock = supervision, clock
        self.places = [ModelPlace() for _ in range(n_samplers)]
        self.restarts: list[float] = []
        #: tickets whose report somebody is interested in, with their samplers
        self.wanted: dict[int, int] = {}
        #: reports that have arrived and were not taken: samplers and tickets
        self.reports: deque[tuple[int, int]] = deque()
        #: what the user has to be told of deaths
        self.warnings: list[str] = []
        #: what whoever waits has to be told instead of an answer
        self.errors: list[str] = []
        #: the requests to which somebody waits for an answer
        self.waited_for: list[Request] = []
        # All that were ever made, so that none is taken for another one.
        self._asked: list[Request] = []

    def asks(self, sampler: int, request: Request) -> None:
        """Somebody is about to ask for something."""
        place = self.places[sampler]
        assert not is_among(request, self._asked)
        self._asked.append(request)
        place.open.append(request)
        if not place.is_empty:
            place.to_send.append(request)
        if isinstance(request, Collect):
            self.wanted[request.ticket.number] = sampler
        if isinstance(request, Reset):
            place.seeds |= set(request.seeds)

    def forgets_reports(self) -> None:
        self.wanted.clear()
        self.reports.clear()

    def sent(self, sampler: int, request: Request) -> None:
        place = self.places[sampler]
        assert place.to_send, f"{request} is sent to sampler {sampler} for no reason"
        expected = place.to_send.popleft()
        if isinstance(expected, Reseeded):
            assert isinstance(request, Reset)
            assert len(request.seeds) == len(set(request.seeds)) == len(expected.reset.seeds)
            assert place.seeds.isdisjoint(request.seeds)
            assert request.options == [{}] * len(request.seeds)
            place.seeds |= set(request.seeds)
        elif is_among(expected, self._asked):
            assert is_same(request, expected)
        else:
            assert request == expected

    def answered(self, sampler: int, request: Request, reply: Reply) -> None:
        place = self.places[sampler]
        is_preparation = not is_among(request, self._asked)
        if place.failure is not None:
            # Its successor does all that again.
            return
        if isinstance(reply, Failure) and (request.failure_ends_sampler or is_preparation):
            place.failure = reply.traceback.splitlines()[-1]
        elif not is_preparation:
            assert is_same(place.open.pop(0), request)
            if isinstance(reply, Result):
                note(place, request)
            elif is_among(request, self.waited_for):
                self.errors.append(reply.traceback.splitlines()[-1])
            if isinstance(request, Collect) and self.wanted.pop(request.ticket.number, None) is not None:
                self.reports.append((sampler, request.ticket.number))
                place.n_deaths_in_a_row = 0

    def died(self, death: Death) -> None:
        place, now = self.places[death.sampler], self.clock.now
        how = death.how
        if place.failure is not None:
            how = place.failure
        elif how == "was killed.":
            how = "hung: a step or a reset of its environment took longer than step_timeout=5 s"
        place.to_send.clear()
        place.is_empty, place.failure = True, None
        limit = self.supervision.max_restarts if self.supervision.on_failure == "restart" else 0
        assert limit is not None
        place.is_abandoned = sum(now - then < RESTART_WINDOW for then in self.restarts) >= limit
        if place.is_abandoned:
            self.errors.append(how)
            place.open.clear()
            self.wanted = {ticket: sampler for ticket, sampler in self.wanted.items() if sampler != death.sampler}
            return
        self.restarts.append(now)
        self.warnings.append(how)
        steps = [request for request in place.open if isinstance(request, Step)]
        self.errors += [how for request in steps if is_among(request, self.waited_for)]
        place.open = [request for request in place.open if not isinstance(request, Step)]
        delays = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
        place.next_start = now + delays[min(place.n_deaths_in_a_row, 6)]
        place.n_deaths_in_a_row += 1

    def started(self, sampler: int) -> None:
        place = self.places[sampler]
        assert place.is_empty
        # Where it was not to be replaced, it is when there is something to do again.
        assert place.open if place.is_abandoned else self.clock.now >= place.next_start
        place.is_empty = place.is_abandoned = False
        place.n_successors += 1
        place.to_send.extend(briefing(place))
        place.to_send.extend(place.open)


def is_same(one: Request, other: Request) -> bool:
    """Whether this is the same request, not just one for the same. The client makes those for chunks by itself."""
    if isinstance(one, Collect) and isinstance(other, Collect):
        return one.ticket is other.ticket
    return one is other


def is_among(request: Request, requests: Iterable[Request]) -> bool:
    return any(is_same(request, other) for other in requests)


def note(place: ModelPlace, request: Request) -> None:
    """Keep in mind what a sampler has carried out."""
    if isinstance(request, BuildEnvs):
        place.build = request
    elif isinstance(request, Configure):
        place.configure = request
    elif isinstance(request, Reset) and None not in request.seeds:
        place.reset = request
    elif isinstance(request, SetAttr) or (isinstance(request, EnvMethod) and request.name.startswith("set_")):
        for env in request.indices:
            key = type(request), request.name, env
            place.setters.pop(key, None)
            place.setters[key] = replace(request, indices=[env])


def briefing(place: ModelPlace) -> Iterable[Request | Reseeded]:
    """What a new sampler has to be told."""
    if place.build is not None:
        yield replace(place.build, show_warnings=False)
    yield from place.setters.values()
    if place.reset is not None:
        yield Reseeded(place.reset)
    if place.configure is not None:
        yield configure(place.n_successors)


# Requests


@dataclass(frozen=True)
class NumberedActor:
    """An actor's specification that knows how many samplers have died before."""

    incarnation: int
    weight_names: tuple[str, ...] = ()

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        return ()

    def for_successor(self, incarnation: int) -> "NumberedActor":
        return NumberedActor(incarnation)

    def build(self, n_envs: int) -> Actor:
        raise NotImplementedError


N_ENVS = 2
EVERY_ENV = range(N_ENVS)
LAYOUT = Layout((Field("bias", (), "<f8"),))
GEOMETRY = ExperienceGeometry(LAYOUT, 1, 1)
MEMORY = SharedMemory(64)


def build() -> BuildEnvs:
    return BuildEnvs([gym.Env] * N_ENVS, (), show_warnings=True)


def configure(incarnation: int = 0) -> Configure:
    return Configure(CollectionSettings(NumberedActor(incarnation), LAYOUT, MEMORY, GEOMETRY, MEMORY, False))


def reset(first: int | None = None) -> Reset:
    seeds = [None if first is None else first + env for env in EVERY_ENV]
    return Reset(seeds, [{"course": "hard"}] * N_ENVS)


def get_attr() -> GetAttr:
    return GetAttr("x", EVERY_ENV)


def set_attr(name: str = "x", value: int = 0) -> SetAttr:
    return SetAttr(name, value, EVERY_ENV)


def method(name: str) -> EnvMethod:
    return EnvMethod(name, (), {}, EVERY_ENV)


def step() -> Step:
    return Step(np.zeros(N_ENVS))


def ticket(number: int) -> Ticket:
    return Ticket(number, run=0, slot=0, n_steps=4, version=None, max_policy_lag=None, infos=InfoSelection())


class World:
    """
    A client with fake samplers. Whatever is asked here, is checked against the model.

    :param supervision: what happens when samplers die
    :param n_samplers: number of samplers
    :param room: how many requests a mailbox can hold
    """

    def __init__(self, supervision: Supervision | None = None, n_samplers: int = 2, room: int = 100) -> None:
        supervision = supervision or Supervision(max_restarts=10_000)
        self.clock = Clock()
        self.model = Model(n_samplers, supervision, self.clock)
        self.backend = FakeBackend(n_samplers, room, self.clock, supervision.step_timeout is not None, self.model)
        self.patch = pytest.MonkeyPatch()
        for module in ("client", "place", "patience"):
            self.patch.setattr(f"sb3_walle.backends.{module}.time", self.clock)
        with self.patch.context() as patch:
            timed = functools.partial(Restarts, clock=self.clock.monotonic)
            patch.setattr("sb3_walle.backends.client.Restarts", timed)
            self.client = SamplerClient(self.backend, supervision)
        self._tickets = count()
        self._n_notices = 0

    def end(self) -> None:
        self.client.close()
        assert self.backend.is_closed
        self.patch.undo()

    def happens(self, *fates: tuple[int, Fate]) -> None:
        """Let something become of samplers as soon as somebody waits."""
        self.backend.fates.extend(fates)

    def call(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        for sampler, request in requests.items():
            self.model.asks(sampler, request)
        values = self._attempt(lambda: self.client.call(requests), list(requests.values()))
        assert list(values) == list(requests)
        assert all(values[sampler] is request for sampler, request in requests.items())
        return values

    def ask(self, sampler: int, *requests: Request) -> None:
        """Have one sampler do something, and then something else."""
        for request in requests:
            self.call({sampler: request})

    def collect(self, sampler: int) -> int:
        number = next(self._tickets)
        request = Collect(ticket(number))
        self.model.asks(sampler, request)
        self._attempt(lambda: self.client.collect(sampler, request.ticket))
        return number

    def next_report(self) -> tuple[int, int]:
        sampler, report = self._attempt(self.client.next_report)
        assert (sampler, report.ticket) == self.model.reports.popleft()
        return sampler, report.ticket

    def receive_waiting_reports(self) -> None:
        before = self.clock.now
        self._attempt(self.client.receive_waiting_reports)
        assert self.clock.now == before

    def forget_reports(self) -> None:
        self.model.forgets_reports()
        self.client.forget_reports()

    def _attempt(self, wait: Callable[[], T], waited_for: Iterable[Request] = ()) -> T:
        """Wait for something. The model knows whether that has to end with an error, and what the user is told."""
        model = self.model
        model.waited_for, model.errors, model.warnings = list(waited_for), [], []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = wait()
            except SamplerError as error:
                assert model.errors and model.errors[0] in str(error)
                raised: BaseException | None = error
            except KeyboardInterrupt as error:
                raised = error
            else:
                assert model.errors == []
                raised = None
        model.waited_for = []
        self._check_warnings(caught)
        if raised is not None:
            raise raised
        return value

    def _check_warnings(self, caught: list[warnings.WarningMessage]) -> None:
        assert all(warning.category is SamplerWarning and warning.filename == __file__ for warning in caught)
        texts = [str(warning.message) for warning in caught]
        notices = [text for text in texts if text.startswith("Waiting for 60 s")]
        self._n_notices += len(notices)
        assert self._n_notices <= 1
        deaths = [text for text in texts if text not in notices]
        assert len(deaths) == len(self.model.warnings)
        assert all(expected in text for expected, text in zip(self.model.warnings, deaths, strict=True))


class ClientAgainstModel(RuleBasedStateMachine):
    """An owner of samplers that asks for anything at any time, while anything becomes of them."""

    samplers = st.integers(0, 2)
    fates = st.lists(st.tuples(samplers, st.sampled_from(Fate)), max_size=8)
    requests = st.one_of(
        st.builds(get_attr),
        st.builds(step),
        st.builds(configure),
        st.builds(reset, st.none() | st.integers(0, 3).map(lambda number: number * N_ENVS)),
        st.builds(set_attr, st.sampled_from("xy"), st.integers(0, 3)),
        st.builds(method, st.sampled_from(["set_x", "render"])),
    )

    @initialize(
        supervision=st.sampled_from(
            [
                Supervision(max_restarts=10_000),
                Supervision(max_restarts=10_000, step_timeout=5),
                Supervision(max_restarts=3),
                Supervision("raise", step_timeout=5),
            ]
        ),
        n_samplers=st.integers(1, 3),
        room=st.integers(1, 4),
        fates=fates,
    )
    def begin(self, supervision: Supervision, n_samplers: int, room: int, fates: list[tuple[int, Fate]]) -> None:
        self.world = World(supervision, n_samplers, room)
        self.try_to(fates, self.world.call, {sampler: build() for sampler in range(n_samplers)})

    def try_to(self, fates: list[tuple[int, Fate]], wait: Callable[..., object], *arguments: object) -> None:
        """Wait for something, while something becomes of the samplers. Whether errors are right, the world knows."""
        n_samplers = self.world.client.n_samplers
        self.world.happens(*((sampler % n_samplers, fate) for sampler, fate in fates))
        with contextlib.suppress(SamplerError, KeyboardInterrupt):
            wait(*arguments)

    @rule(fates=fates, requests=st.dictionaries(samplers, requests, min_size=1))
    def call(self, fates: list[tuple[int, Fate]], requests: dict[int, Request]) -> None:
        n_samplers = self.world.client.n_samplers
        self.try_to(fates, self.world.call, {sampler % n_samplers: request for sampler, request in requests.items()})

    @rule(sampler=samplers, n_chunks=st.integers(1, 3))
    def collect(self, sampler: int, n_chunks: int) -> None:
        for _ in range(n_chunks):
            self.try_to([], self.world.collect, sampler % self.world.client.n_samplers)

    @precondition(lambda self: self.world.model.wanted or self.world.model.reports)
    @rule(fates=fates)
    def next_report(self, fates: list[tuple[int, Fate]]) -> None:
        self.try_to(fates, self.world.next_report)

    @rule(fates=fates)
    def receive_waiting_reports(self, fates: list[tuple[int, Fate]]) -> None:
        self.try_to(fates, self.world.receive_waiting_reports)

    @rule()
    def forget_reports(self) -> None:
        self.world.forget_reports()

    @rule(seconds=st.sampled_from([0.1, 5.0, 60.0, RESTART_WINDOW]))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @invariant()
    def counts_are_right(self) -> None:
        client, model = self.world.client, self.world.model
        assert client.n_restarts == len(model.restarts)
        assert client.n_reports_waiting == len(model.reports)

    def teardown(self) -> None:
        # When nothing more becomes of them, they do all that is left to do.
        model = self.world.model
        self.world.backend.fates.clear()
        while model.wanted or model.reports:
            self.try_to([], self.world.next_report)
        while any(place.open for place in model.places):
            self.world.clock.now += 1
            self.try_to([], self.world.receive_waiting_reports)
        assert not any(place.to_send for place in model.places)
        assert self.world.client.n_reports_waiting == 0
        self.world.end()


ClientAgainstModel.TestCase.settings = settings(deadline=None, max_examples=int(__import__("os").environ.get("NEX", "100")), stateful_step_count=int(__import__("os").environ.get("NST","20")))
TestClientAgainstModel = ClientAgainstModel.TestCase
