"""What a new sampler is asked for first, after the one with the same number has died."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sb3_walle.samplers.episodes import CompletedEpisodes
from sb3_walle.samplers.factories import PickledEnv
from sb3_walle.samplers.layers import SETTER_PREFIX
from sb3_walle.samplers.requests import (
    BuildEnvs,
    Collect,
    Configure,
    Drive,
    EnvMethod,
    Evaluate,
    Register,
    Request,
    Reset,
    SetAttr,
    Step,
    WriteOwnFiles,
)
from sb3_walle.samplers.tickets import ChunkReport


class Setters:
    """What was set in environments and lasts. Of what was set more than once, the last counts."""

    def __init__(self) -> None:
        # By kind, name and environment: its number, and the request, which may name other environments, too.
        self._requests: dict[tuple[str, str, int], tuple[int, SetAttr | EnvMethod]] = {}
        #: how often something was set
        self.n_noted = 0

    def note(self, request: Request) -> None:
        """Remember a request that was carried out, if it sets something."""
        if isinstance(request, SetAttr) or (isinstance(request, EnvMethod) and request.name.startswith(SETTER_PREFIX)):
            for env in request.indices:
                key = (type(request).__name__, request.name, env)
                # To the end: in the order in which the last of each were carried out.
                self._requests.pop(key, None)
                self.n_noted += 1
                self._requests[key] = (self.n_noted, request)

    def since(self, n_noted: int = 0) -> list[SetAttr | EnvMethod]:
        """
        :return: what was set after the first :attr:`n_noted`, in this order. What was set in several environments at
            once is, as far as it still counts, because vectorised ones may know nothing else
        """
        asked: list[tuple[SetAttr | EnvMethod, list[int]]] = []
        for (_, _, env), (number, request) in self._requests.items():
            if number <= n_noted:
                continue
            if asked and asked[-1][0] is request:
                asked[-1][1].append(env)
            else:
                asked.append((request, [env]))
        return [replace(request, indices=envs) for request, envs in asked]


class SetupRequests:
    """
    Remembers what a sampler was asked to do that lasts: how its environments are built, what was set in them, with
    what seeds they began, how to collect, and how many steps and whole episodes were made since then. Of what was set
    more than once, the last counts.
    """

    def __init__(self) -> None:
        self._build: BuildEnvs | None = None
        self._files: WriteOwnFiles | None = None
        self._setters = Setters()
        self._reset: Reset | None = None
        self._configure: Configure | None = None
        self._drive: Drive | None = None
        self._n_steps = 0
        self._completed: CompletedEpisodes | None = None

    def note(self, request: Request, value: Any = None) -> None:
        """Remember a request that was carried out, and what it returned."""
        if isinstance(request, Collect):
            # What was abandoned counts for nothing.
            if value.seal is not None:
                self._n_steps += value.seal.n_steps
                if request.ticket.shares:
                    completed = self._completed or CompletedEpisodes()
                    self._completed = completed.after(request.ticket.run, value.n_episodes)
        elif isinstance(request, Step):
            self._n_steps += 1
        elif isinstance(request, BuildEnvs):
            self._build = request
        elif isinstance(request, Register) and self._build is not None:
            self._build = replace(self._build, registrations=request.registrations)
        elif isinstance(request, WriteOwnFiles):
            self._files = request
        elif isinstance(request, Configure):
            self._configure, self._n_steps, self._completed = request, 0, None
            self._drive = None
        elif isinstance(request, Drive):
            self._drive = request
        elif isinstance(request, Reset | Evaluate) and request.seeds[0] is not None:
            self._reset = Reset(request.seeds, request.options)
        else:
            self._setters.note(request)

    @property
    def is_driving(self) -> bool:
        """Whether the sampler acts in real time."""
        return self._drive is not None

    def end_drive(self) -> None:
        """Note that the sampler acts in real time no longer."""
        self._drive = None

    def note_steps(self, reports: Sequence[ChunkReport]) -> None:
        """Remember what a sampler has collected in real time, without being asked for each chunk."""
        if self._drive is not None and reports[-1].run == self._drive.order.run:
            self._n_steps += len(reports)
            self._drive = Drive(replace(self._drive.order, first_ticket=reports[-1].ticket + 1))

    def for_successor(self, incarnation: int) -> Iterator[Request]:
        """
        :param incarnation: how many samplers with this number have died before
        :return: what to ask the new one for, in this order. Its random streams are others than those before
        """
        if self._build is not None:
            # The same warnings were shown before.
            yield replace(
                self._build,
                factories=[
                    replace(factory, incarnation=incarnation) if isinstance(factory, PickledEnv) else factory
                    for factory in self._build.factories
                ],
                show_warnings=False,
                incarnation=incarnation,
            )
        if self._files is not None:
            yield self._files
        yield from self._setters.since()
        if self._reset is not None:
            seeds = [None if seed is None else other_seed(seed, incarnation) for seed in self._reset.seeds]
            yield Reset(seeds, options=[{}] * len(seeds))
        if self._configure is not None:
            settings = self._configure.settings
            actor = settings.actor.for_successor(incarnation)
            settings = replace(settings, actor=actor)
            yield replace(self._configure, settings=settings, n_steps=self._n_steps, completed=self._completed)
        if self._drive is not None:
            yield self._drive


def other_seed(seed: int, incarnation: int) -> int:
    """:return: a seed that is a function of another seed and of the number of samplers that died before"""
    return int(np.random.SeedSequence((seed, incarnation)).generate_state(1)[0])
