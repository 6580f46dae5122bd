"""Samplers on the nodes of a Ray cluster, as their client sees them."""

import atexit
import contextlib
import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from itertools import count
from typing import Any, ClassVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sb3_walle.backends.death import Death
from sb3_walle.backends.process import TERMINATION_TIMEOUT
from sb3_walle.backends.protocol import Event
from sb3_walle.backends.ray.choices import RayChoices
from sb3_walle.backends.ray.cluster import Connection
from sb3_walle.backends.ray.host import HostActor, HostNews, unpickled
from sb3_walle.backends.ray.host_nodes import HostNodes
from sb3_walle.backends.ray.learner_queues import RayQueues
from sb3_walle.backends.ray.link import RELAY, Link, Relay
from sb3_walle.backends.ray.loss import Loss, how_it_was_lost
from sb3_walle.backends.ray.passing import packed
from sb3_walle.backends.ray.placement import Node, divide
from sb3_walle.backends.ray.start_check import check_started
from sb3_walle.backends.supervision import Supervision, warn
from sb3_walle.samplers.errors import CLOSED, SamplerError, SamplerWarning
from sb3_walle.samplers.requests import Request
from sb3_walle.termination import is_terminating
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues

# Time for the hosts to start: Ray starts a process on each node, which imports what a host needs.
START_TIMEOUT = 120.0
# A host that takes the place of a lost one has less: its node may be dead, too, and Ray does not know it yet.
REPLACEMENT_TIMEOUT = 5.0
# While samplers wait for a node, how often to look for one.
SEARCH_SECONDS = 1.0


class RaySamplers:
    """
    The hosts on the nodes, and the samplers on each.

    :param choices: what the user chooses
    :param n_samplers: number of samplers
    :param preload: names of modules to import before forking
    :param supervision: how samplers are run
    """

    is_closed_when_forgotten: ClassVar[bool] = True

    def __init__(
        self, choices: RayChoices, n_samplers: int, preload: tuple[str, ...], supervision: Supervision
    ) -> None:
        self.n_samplers = n_samplers
        self._choices, self._preload, self._supervision = choices, preload, supervision
        self._owner = os.getpid()
        self._closed = False
        self._nodes = HostNodes(choices, n_samplers)
        self._links: dict[str, Link] = {}
        # From the relay's thread, in their order: what samplers and hosts tell, and losses of hosts.
        self._inbox: deque[Event | SamplerWarning | Loss] = deque()
        self._has_news = threading.Event()
        # What was asked of samplers that wait for a node, and since when they wait.
        self._waiting: dict[int, list[tuple[str, tuple]]] = {}
        self._waiting_since = math.inf
        # Where each sampler was started last.
        self._homes: dict[int, Link] = {}
        # Numbers of losses: all samplers that are lost with a host count as one death.
        self._causes = count()
        self._last_failure: Loss | None = None
        self._queues: RayQueues | None = None
        self._n_queues = 0
        self._connection = Connection(choices.address, choices.runtime_env)
        self._relay = Relay()
        _open_samplers.add(self)
        try:
            self._launch()
        except BaseException:
            self.close(0.0)
            raise

    @property
    def n_processes(self) -> int:
        """Number of samplers on this machine."""
        here = self._links.get(ray.get_runtime_context().get_node_id())
        return 0 if here is None else len(here.samplers)

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        self._check_usable()
        self._n_queues += 1
        self._queues = RayQueues(self._n_queues, plan, self._links.values)
        for link in self._links.values():
            self._queues.open_at(link)
        return self._queues.learner_end()

    def send(self, sampler: int, number: int, request: Request) -> bool:
        self._check_usable()
        command = ("send", (sampler, number, packed(request), request.is_plain))
        link = self._link_of(sampler)
        if link is not None:
            link.command(command[0], *command[1])
        elif sampler in self._waiting:
            self._waiting[sampler].append(command)
        elif not any(isinstance(news, Death) and news.sampler == sampler for news in list(self._inbox)):
            # Ctrl-C has kept the news of its death from the client.
            self._tell(Death(sampler, "died"))
        return True

    def receive(self, timeout: float | None = None) -> Event | None:
        self._check_usable()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._start_waiting()
            self._has_news.clear()
            event = self._next_event()
            left = deadline - time.monotonic()
            if event is not None or left <= 0:
                return event
            longest = min(left, SEARCH_SECONDS if self._waiting else math.inf)
            self._has_news.wait(longest if longest < math.inf else None)

    def seconds_at_step(self, sampler: int) -> float:
        link = self._link_of(sampler)
        return 0.0 if link is None else link.seconds_at_step.get(sampler, 0.0)

    def kill(self, sampler: int) -> None:
        link = self._link_of(sampler)
        if link is not None:
            link.command("kill", sampler)

    def start(self, sampler: int) -> None:
        self._check_usable()
        link = self._link_of(sampler) or self._link_with_room(sampler)
        if link is None:
            if not self._waiting:
                self._waiting_since = time.monotonic()
                warn(f"No node of the Ray cluster is left for sampler {sampler}: waiting for one.")
            self._waiting[sampler] = []
        else:
            self._start_at(link, sampler)

    def close(self, timeout: float | None = None) -> None:
        if threading.current_thread().name == RELAY:
            # Garbage collection has come upon forgotten samplers there, and the relay cannot wait for itself.
            threading.Thread(target=self.close, args=(timeout,)).start()
            return
        if self._closed:
            return
        self._closed = True
        _open_samplers.discard(self)
        if os.getpid() != self._owner:
            return
        try:
            if ray.is_initialized():
                self._close_hosts(self._supervision.close_timeout if timeout is None else timeout)
        finally:
            try:
                self._relay.close()
                self._warn()
            finally:
                self._connection.close()

    # Hosts

    def _launch(self) -> None:
        found = self._nodes.at_start()
        shares = divide(self.n_samplers, found, {node.node_id: self._nodes.room(node) for node in found})
        for node in found:
            if node.node_id in shares:
                self._new_link(node, len(shares[node.node_id]))
        self._watch(list(self._links.values()), START_TIMEOUT)
        for node_id, samplers in shares.items():
            for sampler in samplers:
                self._start_at(self._links[node_id], sampler)

    def _new_link(self, node: Node, n_samplers: int) -> Link:
        host = HostActor.options(
            num_cpus=self._nodes.cpus_of_a_host(n_samplers),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
            runtime_env=self._connection.runtime_env_of_hosts,
        ).remote(self.n_samplers, self._preload, self._supervision, sys.path)
        link = Link(host, node, self._relay, self._choices.heartbeat_timeout, self._note_news, self._note_loss)
        self._links[node.node_id] = link
        self._nodes.take(node)
        if self._queues is not None:
            self._queues.open_at(link)
        return link

    def _watch(self, links: list[Link], timeout: float) -> None:
        check_started(links, self._preload, timeout)
        for link in links:
            link.watch()

    def _start_at(self, link: Link, sampler: int) -> None:
        self._homes[sampler] = link
        link.samplers.add(sampler)
        link.command("start", sampler)

    def _link_of(self, sampler: int) -> Link | None:
        return next((link for link in self._links.values() if sampler in link.samplers), None)

    def _link_with_room(self, sampler: int) -> Link | None:
        """
        The host that is least full, where possible that of the sampler before; it may be a new one. One that is too
        full already if there is no other.
        """
        home = self._homes.get(sampler)
        by_fill = sorted(self._links.values(), key=lambda link: (self._fill(link), link is not home))
        best = next((link for link in by_fill if len(link.samplers) < self._nodes.room(link.node)), None)
        for node in self._nodes.free(self._links):
            if best is None or 1 / node.n_cpus < self._fill(best):
                link = self._link_to_new_host(node)
                if link is not None:
                    return link
        return best or next(iter(by_fill), None)

    @staticmethod
    def _fill(link: Link) -> float:
        """How full a host would be with one sampler more."""
        return (len(link.samplers) + 1) / link.node.n_cpus

    def _link_to_new_host(self, node: Node) -> Link | None:
        n_homeless = self.n_samplers - sum(len(link.samplers) for link in self._links.values())
        # Where samplers have no other place to go, there is no hurry.
        timeout = REPLACEMENT_TIMEOUT if self._links else START_TIMEOUT
        link = self._new_link(node, int(min(n_homeless, self._nodes.room(node))))
        try:
            self._watch([link], timeout)
        except RuntimeError as error:
            self._nodes.avoid(node)
            warn(str(error))
            self._drop(link)
            return None
        except BaseException:
            # Ctrl-C, say: what it has started is not known to work.
            self._drop(link)
            raise
        return link

    def _drop(self, link: Link) -> None:
        link.abandon()
        self._links.pop(link.node.node_id, None)
        with contextlib.suppress(Exception):
            ray.kill(link.host)

    def _start_waiting(self) -> None:
        """Start those that wait for a node, if there is one now."""
        if not self._waiting:
            return
        link = self._link_with_room(next(iter(self._waiting)))
        if link is None:
            if time.monotonic() - self._waiting_since > self._choices.node_grace:
                raise SamplerError(
                    f"No node of the Ray cluster was left for samplers {sorted(self._waiting)} for "
                    f"node_grace={self._choices.node_grace:g} s."
                )
            return
        for sampler, commands in self._waiting.items():
            link = self._link_with_room(sampler) or link
            self._start_at(link, sampler)
            for name, args in commands:
                link.command(name, *args)
        self._waiting = {}

    # News

    def _note_news(self, news: HostNews) -> None:
        """In the relay's thread: put the chunks where the learner looks for them."""
        queues, events = self._queues, [unpickled(*event) for event in news.events]
        for index, (number, contents) in news.chunks.items():
            delivery: Any = events[index]
            if queues is not None and queues.number == number:
                queues.fill(delivery.sampler, delivery.reply.value.slot, contents)
        self._tell(*events, *map(SamplerWarning, news.warnings))

    def _note_loss(self, link: Link, error: BaseException) -> None:
        self._tell(Loss(link, error, next(self._causes)))

    def _tell(self, *news: Event | SamplerWarning | Loss) -> None:
        self._inbox.extend(news)
        if news:
            self._has_news.set()

    def _next_event(self) -> Event | None:
        """
        Ctrl-C may end this at any instruction, so nothing leaves the inbox before all has been noted that follows from
        it. Of a death that is lost afterwards, :meth:`send` tells again.
        """
        while self._inbox:
            news = self._inbox[0]
            if isinstance(news, Loss):
                self._note_lost(news)
                if news.link.samplers:
                    sampler = min(news.link.samplers)
                    news.link.samplers.discard(sampler)
                    return news.death_of(sampler)
            elif isinstance(news, Death):
                link = self._link_of(news.sampler)
                if link is not None:
                    link.samplers.discard(news.sampler)
            self._inbox.popleft()
            if isinstance(news, SamplerWarning):
                warn(str(news))
            elif not isinstance(news, Loss):
                return news
        return None

    def _note_lost(self, loss: Loss) -> None:
        if self._links.get(loss.link.node.node_id) is loss.link:
            if not loss.is_of_host_alone:
                # Its node is dead or silent, and Ray may not know it yet.
                self._nodes.avoid(loss.link.node)
            self._drop(loss.link)
        if loss.repeats(self._last_failure):
            raise loss.to_error()
        if loss.is_failure:
            self._last_failure = loss

    def _close_hosts(self, timeout: float | None) -> None:
        links = list(self._links.values())
        if is_terminating():
            timeout = TERMINATION_TIMEOUT if timeout is None else min(timeout, TERMINATION_TIMEOUT)
        try:
            pending = {link.host.close.remote(timeout): link for link in links if link.is_at_work}
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=SEARCH_SECONDS)
                for answer in ready:
                    self._tell(*_last_warnings(answer, pending.pop(answer)))
                pending = {answer: link for answer, link in pending.items() if link.is_at_work}
                self._warn()
        finally:
            for link in links:
                self._drop(link)

    def _warn(self) -> None:
        """Of what has come since the samplers were closed, tell what the user should know."""
        while self._inbox:
            news = self._inbox.popleft()
            if isinstance(news, SamplerWarning):
                warn(str(news))

    def _check_usable(self) -> None:
        if self._closed:
            raise SamplerError(CLOSED)
        if os.getpid() != self._owner:
            raise SamplerError("The samplers belong to the process that this one was forked from")


def _last_warnings(closed: "ray.ObjectRef", link: Link) -> list[SamplerWarning]:
    try:
        return [SamplerWarning(text) for text in ray.get(closed)[link.n_warnings :]]
    except RayError as error:
        how = f"The host on node {link.node.address} {how_it_was_lost(error)}"
        return [SamplerWarning(f"{how} before its samplers had closed their environments.")]


_open_samplers: "weakref.WeakSet[RaySamplers]" = weakref.WeakSet()


def _close_all() -> None:
    for samplers in list(_open_samplers):
        samplers.close()


# What is registered last is called first: environments are closed before Ray ends what runs.
atexit.register(_close_all)
