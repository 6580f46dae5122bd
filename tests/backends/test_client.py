"""
Samplers die, hang and fail: every request that is waited for is answered once, every chunk that was asked for is
reported once and in its order, and a new sampler is told what the ones before it were told before it gets to work.
"""

import contextlib
import functools
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import count, groupby
from typing import Any, NamedTuple, TypeVar

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sb3_walle.backends.client import LONGEST_PAUSE, SamplerClient
from sb3_walle.backends.protocol import UNREADABLE, Death, Delivery, Event
from sb3_walle.backends.supervised_sampler import END_TIMEOUT
from sb3_walle.backends.supervision import RESTART_WINDOW, Restarts, Supervision
from sb3_walle.samplers.actors.protocol import Actor
from sb3_walle.samplers.errors import CLOSED, Failure, SamplerError, SamplerWarning
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.requests import (
    BuildEnvs,
    Collect,
    Configure,
    EnvMethod,
    GetAttr,
    Reply,
    Request,
    Reset,
    Result,
    SetAttr,
    Step,
)
from sb3_walle.samplers.sampler import CollectionSettings
from sb3_walle.samplers.tickets import ChunkReport, Ticket
from sb3_walle.transport.chunk import Seal
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues, SamplerQueues

T = TypeVar("T")

# Samplers of which one can say what becomes of them


class Clock:
    """Stands for the module ``time``. Time passes during a wait, and at no other time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Fate(Enum):
    """What can become of a sampler, or of a wait."""

    #: it carries out a request; or ends, if the last one has failed in such a way that it has to
    WORK = auto()
    #: the request that it carries out raises an exception
    FAIL = auto()
    #: the request, or the reply to it, cannot be unpickled
    GARBLE = auto()
    #: it dies at any moment
    DIE = auto()
    #: it never comes back from the step that it is making, or from closing its environments
    HANG = auto()
    #: what it has sent arrives
    ARRIVE = auto()
    #: nothing arrives for as long as one is ready to wait
    WAIT = auto()
    #: the user presses Ctrl-C during the wait
    INTERRUPT = auto()


class FakeSampler:
    """A sampler that does what it is said to."""

    def __init__(self) -> None:
        self.mailbox: deque[tuple[int, Request]] = deque()
        self.on_the_way: deque[tuple[Request | None, Event]] = deque()
        self.is_alive, self.is_ending, self.is_stuck, self.is_killed = True, False, False, False
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
        self.is_closed_when_forgotten = False
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

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        raise NotImplementedError

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
                self.befall(index, fate)
            elif self.samplers[index].on_the_way:
                return self._arrival(index)
        for index in range(self.n_samplers):
            self.befall(index, Fate.WORK)
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
        assert not self.samplers[sampler].is_killed
        self.samplers[sampler].is_killed = True
        self.kills.append((sampler, self._clock.now))

    def start(self, sampler: int) -> None:
        self._check_open()
        assert not self.samplers[sampler].is_alive and not self.samplers[sampler].on_the_way
        if self.fails_to_start is not None:
            error, self.fails_to_start = self.fails_to_start, None
            raise error
        self.samplers[sampler] = FakeSampler()
        self.sent[sampler].append([])
        self._model.started(sampler)

    def close(self, timeout: float | None = None) -> None:
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

    def befall(self, index: int, fate: Fate) -> None:
        """Something becomes of a sampler, if it can."""
        sampler = self.samplers[index]
        if not sampler.is_alive:
            return
        if sampler.is_killed:
            self._die(index, "was killed")
        elif fate is Fate.DIE:
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
        ticket = request.ticket
        return ChunkReport(ticket.number, ticket.slot, Seal(ticket.number, 0, ticket.n_steps), None, 0.0, 0.0)
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
    :param n_steps: how many steps were made since it got ready to collect
    :param seeds: all that were used
    :param failure: of which the present sampler is going to die
    """

    open: list[Request] = field(default_factory=list)
    to_send: deque[Request | Reseeded] = field(default_factory=deque)
    build: BuildEnvs | None = None
    setters: dict[tuple[type, str, int], Request] = field(default_factory=dict)
    reset: Reset | None = None
    configure: Configure | None = None
    n_steps: int = 0
    seeds: set[int | None] = field(default_factory=set)
    failure: str | None = None
    n_successors: int = 0
    n_deaths_in_a_row: int = 0
    is_empty: bool = False
    is_abandoned: bool = False
    next_start: float = 0.0


class Model:
    """
    What samplers must be sent and what their owner must be told: nothing but lists and dictionaries.

    :param n_samplers: number of samplers
    :param supervision: what happens when samplers die
    :param clock: the time
    """

    def __init__(self, n_samplers: int, supervision: Supervision, clock: Clock) -> None:
        self.supervision, self.clock = supervision, clock
        self.places = [ModelPlace() for _ in range(n_samplers)]
        self.restarts: list[float] = []
        #: tickets whose report is waited for, with their samplers
        self.wanted: dict[int, int] = {}
        #: reports that have arrived and were not taken: samplers and tickets
        self.reports: deque[tuple[int, int]] = deque()
        #: what the user has to be told of deaths
        self.warnings: list[str] = []
        #: what the caller has to be told instead of an answer
        self.errors: list[str] = []
        #: the requests whose answer is waited for
        self.waited_for: list[Request] = []
        # All that were ever made, so that none is taken for another one.
        self._asked: list[Request] = []

    def asks(self, sampler: int, request: Request) -> None:
        """A request is about to be made."""
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
            if isinstance(request, Step) and isinstance(reply, Result) and is_among(request, self.waited_for):
                place.n_deaths_in_a_row = 0
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
        place.configure, place.n_steps = request, 0
    elif isinstance(request, Step):
        place.n_steps += 1
    elif isinstance(request, Collect):
        place.n_steps += request.ticket.n_steps
    elif isinstance(request, Reset) and None not in request.seeds:
        place.reset = request
    elif isinstance(request, SetAttr) or (isinstance(request, EnvMethod) and request.name.startswith("set_")):
        for env in request.indices:
            key = type(request), request.name, env
            place.setters.pop(key, None)
            place.setters[key] = request


def briefing(place: ModelPlace) -> Iterable[Request | Reseeded]:
    """What a new sampler has to be told."""
    if place.build is not None:
        yield replace(place.build, show_warnings=False, incarnation=place.n_successors)
    for _, same in groupby(place.setters.items(), lambda item: id(item[1])):
        keys, requests = zip(*same, strict=True)
        yield replace(requests[0], indices=[env for _, _, env in keys])
    if place.reset is not None:
        yield Reseeded(place.reset)
    if place.configure is not None:
        yield replace(configure(place.n_successors), n_steps=place.n_steps)


# Requests


@dataclass(frozen=True)
class NoQueues:
    """Stands for the samplers' end of queues, which fake samplers do not open."""

    def open(self, sampler: int) -> SamplerQueues:
        raise NotImplementedError


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


def build() -> BuildEnvs:
    return BuildEnvs([gym.Env] * N_ENVS, (), show_warnings=True)


def configure(incarnation: int = 0) -> Configure:
    return Configure(CollectionSettings(NumberedActor(incarnation), NoQueues(), squash_output=False))


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
    A client with fake samplers. All that is asked here is checked against the model.

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
        for module in ("client", "supervised_sampler", "silence"):
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

    def happens(self, sampler: int, *fates: Fate) -> None:
        """Let something become of a sampler at the next wait, and after what was due before."""
        self.backend.fates.extend((sampler, fate) for fate in fates)

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
                Supervision(max_restarts=1),
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
        for sampler, fate in fates:
            self.world.happens(sampler % n_samplers, fate)
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
        while any(place.open or place.to_send for place in model.places):
            self.world.clock.now += 1
            self.try_to([], self.world.receive_waiting_reports)
        assert self.world.client.n_reports_waiting == 0
        self.world.end()


ClientAgainstModel.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=25)
TestClientAgainstModel = ClientAgainstModel.TestCase


# One thing at a time


def restarting(max_restarts: int = 100, step_timeout: float | None = None) -> Supervision:
    return Supervision("restart", max_restarts, step_timeout)


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Builds worlds that end with the test."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: Any, **keywords: Any) -> World:
            world = World(*arguments, **keywords)
            stack.callback(world.end)
            return world

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Two samplers that are built."""
    world = make_world()
    world.call({0: build(), 1: build()})
    return world


def kinds(requests: Iterable[Request]) -> list[type[Request]]:
    return [type(request) for request in requests]


def test_client_knows_its_samplers(make_world: Callable[..., World]) -> None:
    client = make_world(n_samplers=3).client
    assert (client.n_samplers, client.n_processes, client.n_restarts, client.n_reports_waiting) == (3, 0, 0, 0)
    assert (
        SamplerClient(FakeBackend(1, 1, Clock(), False, Model(1, restarting(), Clock()))).supervision == Supervision()
    )


def test_answers_belong_to_the_samplers_that_were_asked_in_any_order(world: World) -> None:
    world.happens(1, Fate.WORK, Fate.ARRIVE)
    assert list(world.call({1: get_attr(), 0: step()})) == [1, 0]


def test_reports_are_delivered_in_the_order_of_their_arrival(world: World) -> None:
    first, second, third = world.collect(0), world.collect(1), world.collect(1)
    world.happens(1, *[Fate.WORK, Fate.ARRIVE] * 2)
    assert [world.next_report() for _ in range(3)] == [(1, second), (1, third), (0, first)]


def test_reports_that_arrive_while_something_else_is_waited_for_are_kept(world: World) -> None:
    numbers = [world.collect(0), world.collect(0)]
    world.call({0: get_attr()})
    assert world.client.n_reports_waiting == 2
    assert [world.next_report()[1] for _ in numbers] == numbers


def test_what_has_arrived_is_taken_in_without_waiting(world: World) -> None:
    number = world.collect(0)
    world.happens(0, Fate.WAIT)
    world.receive_waiting_reports()
    assert world.client.n_reports_waiting == 0
    world.receive_waiting_reports()
    assert world.client.n_reports_waiting == 1
    assert world.next_report() == (0, number)


def test_forgotten_chunks_are_not_reported_wherever_they_are(world: World) -> None:
    for _ in range(3):
        world.collect(0)
    # One is taken in, one is on its way, and one is not begun.
    world.happens(0, Fate.WORK, Fate.ARRIVE, Fate.WORK, Fate.WAIT)
    world.receive_waiting_reports()
    assert world.client.n_reports_waiting == 1
    world.forget_reports()
    number = world.collect(0)
    assert world.next_report() == (0, number)
    world.receive_waiting_reports()
    assert world.client.n_reports_waiting == 0


def test_new_sampler_is_told_what_those_before_it_were_told_and_does_what_was_left(world: World) -> None:
    world.ask(
        0, set_attr("x", 1), configure(), reset(5), method("set_y"), method("render"), set_attr("x", 2), get_attr()
    )
    numbers = [world.collect(0), world.collect(0)]
    last = get_attr()
    world.happens(0, Fate.WORK, Fate.DIE)
    world.call({0: last})
    told = world.backend.sent[0][1]
    preparations = [BuildEnvs, EnvMethod, SetAttr, Reset, Configure]
    assert kinds(told) == [*preparations, Collect, GetAttr]
    assert told[0] == replace(build(), show_warnings=False, incarnation=1)
    assert told[2] == SetAttr("x", 2, [0, 1])
    # One chunk was delivered before the death.
    assert told[4] == replace(configure(incarnation=1), n_steps=4)
    assert told[-1] is last
    assert [world.next_report() for _ in numbers] == [(0, number) for number in numbers]
    # The other one was left in peace.
    assert len(world.backend.sent[1]) == 1


def test_every_successor_has_seeds_of_its_own(world: World) -> None:
    world.call({0: reset(7), 1: reset(7 + N_ENVS)})
    seeds = set()
    for _ in range(4):
        world.happens(0, Fate.DIE)
        world.happens(1, Fate.DIE)
        world.call({0: get_attr(), 1: get_attr()})
    for place in world.backend.sent:
        for sent in place:
            (request,) = [request for request in sent if isinstance(request, Reset)]
            seeds |= set(request.seeds)
    assert len(seeds) == 2 * 5 * N_ENVS
    assert [[r.settings.actor for r in sent if isinstance(r, Configure)] for sent in world.backend.sent[0]] == [[]] * 5


@pytest.mark.parametrize("n_done", range(4))
@pytest.mark.parametrize("n_arrived", range(4))
def test_every_chunk_is_reported_once_wherever_the_sampler_dies(n_done: int, n_arrived: int, world: World) -> None:
    numbers = [world.collect(0) for _ in range(3)]
    world.happens(0, *[Fate.WORK] * n_done, Fate.DIE, *[Fate.ARRIVE] * n_arrived)
    assert [world.next_report() for _ in numbers] == [(0, number) for number in numbers]
    world.ask(0, get_attr())
    # What was done is not done again, not even if it was unknown when the sampler died.
    assert kinds(world.backend.sent[0][1]) == [BuildEnvs, *[Collect] * (3 - n_done), GetAttr]
    assert world.client.n_reports_waiting == 0


def test_sampler_that_died_between_two_waits_is_replaced_at_the_next(world: World) -> None:
    world.backend.befall(0, Fate.DIE)
    number = world.collect(0)
    assert world.client.n_restarts == 0
    assert world.next_report() == (0, number)
    assert world.client.n_restarts == 1


def test_samplers_that_die_while_they_are_prepared_are_replaced_later_and_later(world: World) -> None:
    world.ask(0, reset(5), configure())
    number, started = world.collect(0), world.clock.now
    world.happens(0, Fate.DIE, Fate.ARRIVE)
    for n_done in (0, 1, 3):
        world.happens(0, *[Fate.WORK] * n_done, Fate.DIE, *[Fate.ARRIVE] * n_done, Fate.ARRIVE, Fate.WAIT)
    assert world.next_report() == (0, number)
    assert world.client.n_restarts == 4
    assert world.clock.now - started == pytest.approx(0.1 + 0.2 + 0.4)


def test_sampler_that_waits_to_be_replaced_holds_up_no_other(world: World) -> None:
    first, second = world.collect(0), world.collect(1)
    world.happens(0, *[Fate.DIE, Fate.ARRIVE] * 2)
    now = world.clock.now
    assert world.next_report() == (1, second)
    assert world.clock.now == now
    assert world.next_report() == (0, first)
    assert world.clock.now == pytest.approx(now + 0.1)


def test_chunk_brings_the_next_restart_forward_again(world: World) -> None:
    for _ in range(5):
        world.collect(0)
        world.happens(0, Fate.DIE)
        world.next_report()
    assert world.clock.now == 1000.0


def test_only_what_cannot_be_repeated_is_answered_with_an_error(world: World) -> None:
    world.collect(0)
    world.happens(0, Fate.DIE)
    with pytest.raises(SamplerError, match=r"^Sampler 0 died of cause 0\. while collecting experience\.$"):
        world.call({0: step(), 1: step()})
    assert world.client.n_restarts == 1
    # All others are as they were.
    world.call({0: step(), 1: step()})
    world.next_report()
    assert kinds(world.backend.sent[0][1]) == [BuildEnvs, Collect, Step]


def test_error_about_a_step_that_is_no_longer_waited_for_is_dropped(world: World) -> None:
    world.happens(0, Fate.INTERRUPT)
    with pytest.raises(KeyboardInterrupt):
        world.call({0: step()})
    number = world.collect(1)
    world.happens(0, Fate.DIE)
    world.call({0: get_attr()})
    assert world.next_report() == (1, number)


def test_replies_to_what_was_interrupted_are_not_taken_for_others(world: World) -> None:
    for _ in range(3):
        world.happens(0, Fate.WORK, Fate.INTERRUPT)
        with pytest.raises(KeyboardInterrupt):
            world.call({0: get_attr(), 1: get_attr()})
    world.call({0: get_attr(), 1: get_attr()})


# Deaths that are errors


def test_first_death_is_an_error_if_that_was_chosen_and_the_next_request_gets_another_sampler(
    make_world: Callable[..., World],
) -> None:
    world = make_world(Supervision("raise"))
    world.call({0: build(), 1: build()})
    world.ask(0, set_attr(), reset(5), configure())
    world.collect(0)
    number = world.collect(1)
    world.happens(0, Fate.DIE)
    with pytest.raises(SamplerError, match=r"^Sampler 0 died of cause 0\. while collecting experience\.$"):
        world.next_report()
    # No sampler is started until there is something to do, and what the dead one left undone is forgotten.
    assert world.next_report() == (1, number)
    assert len(world.backend.sent[0]) == 1
    number = world.collect(0)
    assert world.next_report() == (0, number)
    assert kinds(world.backend.sent[0][1]) == [BuildEnvs, SetAttr, Reset, Configure, Collect]
    # No restart was hidden from the user.
    assert world.client.n_restarts == 0


def test_sampler_that_fails_every_time_is_an_error_in_the_end(make_world: Callable[..., World]) -> None:
    world = make_world(restarting(2))
    world.call({0: build(), 1: build()})
    world.collect(0)
    begins, fails = [Fate.WORK, Fate.ARRIVE], [Fate.FAIL, Fate.ARRIVE, Fate.WORK, Fate.ARRIVE]
    world.happens(0, *fails, *begins, *fails, Fate.WAIT, *begins, *fails)
    with pytest.raises(SamplerError, match=r"(?s)max_restarts=2 times.*first death.* cause 0.*last death.* cause 2"):
        world.next_report()
    assert world.client.n_restarts == 2
    # As long as there is nothing to do, no sampler is started.
    world.clock.now += 100
    world.call({1: get_attr()})
    assert len(world.backend.sent[0]) == 3
    world.call({0: get_attr()})
    assert len(world.backend.sent[0]) == 4


def test_deaths_of_all_samplers_count_together(make_world: Callable[..., World]) -> None:
    world = make_world(restarting(1))
    world.call({0: build(), 1: build()})
    world.happens(0, Fate.DIE)
    world.happens(1, Fate.DIE)
    with pytest.raises(SamplerError, match=r"(?s)first death: Sampler 0 .*last death: Sampler 1 "):
        world.call({0: get_attr(), 1: get_attr()})
    world.clock.now += RESTART_WINDOW
    world.happens(0, Fate.DIE)
    world.call({0: get_attr(), 1: get_attr()})


def test_warning_that_is_an_error_ends_the_wait_and_nothing_else(world: World) -> None:
    world.happens(0, Fate.DIE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplerWarning)
        request = get_attr()
        world.model.asks(0, request)
        with pytest.raises(SamplerWarning, match="Sampler 0 died of cause 0"):
            world.client.call({0: request})
    # The model does not know that this death was too much for the user.
    world.model.places[0].open.clear()
    world.model.places[0].is_abandoned = True
    world.call({0: get_attr()})


# Failures


@pytest.mark.parametrize("fate", [Fate.FAIL, Fate.GARBLE])
@pytest.mark.parametrize("make", [get_attr, set_attr, step, configure, functools.partial(method, "set_x")])
def test_failure_is_an_answer_and_the_sampler_continues(make: Callable[[], Request], fate: Fate, world: World) -> None:
    number = world.collect(0)
    world.happens(0, Fate.WORK, fate)
    request = make()
    with pytest.raises(SamplerError, match=f"(?s)^Sampler 0 failed while {request.summary}.*cause 0"):
        world.call({0: request, 1: get_attr()})
    world.call({0: get_attr(), 1: get_attr()})
    assert world.next_report() == (0, number)
    assert world.client.n_restarts == 0
    # What has failed is not told to a successor.
    world.happens(0, Fate.DIE)
    world.call({0: get_attr()})
    assert kinds(world.backend.sent[0][1]) == [BuildEnvs, GetAttr]


def test_failure_of_a_chunk_or_a_reset_ends_the_sampler_and_another_one_does_it(world: World) -> None:
    numbers = [world.collect(0), world.collect(0)]
    world.happens(0, Fate.FAIL, Fate.ARRIVE)
    assert [world.next_report() for _ in numbers] == [(0, number) for number in numbers]
    world.happens(0, Fate.FAIL, Fate.ARRIVE)
    world.call({0: reset(3)})
    assert world.client.n_restarts == 2
    # They end by themselves.
    assert world.backend.kills == []


def test_what_a_sampler_says_after_it_has_failed_does_not_count(world: World) -> None:
    number = world.collect(0)
    # It could not read what it was asked for, and so continues with the next.
    world.happens(0, Fate.GARBLE, Fate.WORK, Fate.ARRIVE, Fate.ARRIVE)
    world.call({0: set_attr()})
    assert kinds(world.backend.sent[0][1]) == [BuildEnvs, Collect, SetAttr]
    assert world.next_report() == (0, number)


def test_sampler_that_does_not_end_after_a_failure_is_killed(world: World) -> None:
    number, now = world.collect(0), world.clock.now
    world.happens(0, Fate.FAIL, Fate.HANG, Fate.ARRIVE, Fate.WAIT, Fate.WAIT)
    assert world.next_report() == (0, number)
    assert world.backend.kills == [(0, now + END_TIMEOUT)]
    # It is given the time to die: there is nothing more to do about it.
    assert world.clock.now > now + END_TIMEOUT


def test_sampler_that_cannot_be_prepared_is_killed_at_once_and_replaced(world: World) -> None:
    number, now = world.collect(0), world.clock.now
    world.happens(0, Fate.DIE, Fate.ARRIVE)
    world.happens(0, Fate.FAIL, Fate.ARRIVE, Fate.WORK, Fate.ARRIVE, Fate.WAIT, Fate.FAIL, Fate.ARRIVE)
    assert world.next_report() == (0, number)
    # The second one began a moment later.
    assert world.backend.kills == [(0, now), (0, pytest.approx(now + 0.1))]
    assert world.client.n_restarts == 3


def test_reply_that_cannot_be_read_answers_the_oldest_request(world: World) -> None:
    world.happens(0, Fate.GARBLE, Fate.INTERRUPT)
    with pytest.raises(KeyboardInterrupt):
        world.call({0: get_attr()})
    world.call({0: get_attr()})


@pytest.mark.parametrize("number", [UNREADABLE, 10_000])
def test_reply_without_a_request_is_of_no_interest(number: int, world: World) -> None:
    world.backend.samplers[0].on_the_way.append((get_attr(), Delivery(0, number, Result("nothing"))))
    world.receive_waiting_reports()
    world.call({0: get_attr()})


# Samplers that hang


def test_sampler_that_hangs_is_killed_soon_after_the_time_that_a_step_may_take(
    make_world: Callable[..., World],
) -> None:
    world = make_world(restarting(step_timeout=5))
    world.call({0: build(), 1: build()})
    number, now = world.collect(0), world.clock.now
    world.happens(0, Fate.HANG, *[Fate.WAIT] * 10)
    assert world.next_report() == (0, number)
    ((sampler, at),) = world.backend.kills
    assert sampler == 0 and now + 5 < at <= now + 5 + 5 / 4


def test_user_is_told_once_of_a_sampler_that_says_nothing_for_a_minute(world: World) -> None:
    request = get_attr()
    world.model.asks(1, request)
    world.happens(1, *[Fate.WAIT] * 5)
    started = world.clock.now
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        world.client.call({1: request})
    (warning,) = caught
    assert "Waiting for 60 s for sampler 1 (reading an attribute of its environments)" in str(warning.message)
    assert warning.filename == __file__
    # There was one thing to wake up for.
    assert world.clock.now == started + 60 + 4 * LONGEST_PAUSE


# Mailboxes, and what does not fit


@pytest.mark.parametrize("room", [1, 2, 5])
def test_what_does_not_fit_into_a_mailbox_is_sent_later_in_its_order(
    room: int, make_world: Callable[..., World]
) -> None:
    world = make_world(room=room)
    world.call({0: build(), 1: build()})
    world.ask(0, set_attr("x"), set_attr("y"), reset(5), configure())
    numbers = [world.collect(0) for _ in range(10)]
    assert len(world.backend.samplers[0].mailbox) == room
    world.happens(0, *[Fate.WORK, Fate.ARRIVE] * 4, Fate.DIE)
    assert [world.next_report() for _ in numbers] == [(0, number) for number in numbers]
    world.call({0: get_attr()})


def test_request_that_cannot_be_pickled_is_an_error_for_its_caller(world: World) -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match="cannot pickle it"):
            world.client.call({0: method("unpicklable")})
        world.call({0: get_attr()})
        # Nor is it asked of a new sampler.
        world.happens(0, Fate.DIE)
        world.call({0: get_attr()})


def test_request_that_cannot_be_pickled_costs_no_other_its_answer(make_world: Callable[..., World]) -> None:
    world = make_world(room=1)
    world.call({0: build(), 1: build()})
    numbers = [world.collect(0), world.collect(0)]
    with pytest.raises(TypeError, match="cannot pickle it"):
        world.client.call({0: method("unpicklable")})
    numbers.append(world.collect(0))
    assert [world.next_report() for _ in numbers] == [(0, number) for number in numbers]


def test_start_that_control_c_interrupts_is_tried_again(world: World) -> None:
    number = world.collect(0)
    world.happens(0, Fate.DIE)
    world.backend.fails_to_start = KeyboardInterrupt()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            world.client.next_report()
    assert world.next_report() == (0, number)
    assert world.client.n_restarts == 1


def test_start_that_fails_counts_as_a_death(world: World) -> None:
    world.collect(0)
    world.happens(0, Fate.DIE)
    world.backend.fails_to_start = OSError("no process is left")
    with pytest.warns(SamplerWarning) as told:
        assert world.client.next_report()[0] == 0
    assert world.client.n_restarts == 2
    assert "Sampler 0 could not be started (OSError: no process is left)" in str(told[1].message)


def test_closed_samplers_say_so(world: World) -> None:
    world.client.close()
    for ask in (
        lambda: world.client.call({0: get_attr()}),
        lambda: world.client.collect(0, ticket(0)),
        world.client.next_report,
        world.client.receive_waiting_reports,
    ):
        with pytest.raises(SamplerError, match="The samplers are closed"):
            ask()
