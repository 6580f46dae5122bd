"""The learner's links to its hosts: a thread that passes commands on, and takes in what hosts tell."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ray.actor import ActorHandle

from sb3_walle.backends.ray.host import HostNews
from sb3_walle.backends.ray.placement import Node

# Between two signs of life that a host is asked for.
BEAT_SECONDS = 1.0
GRACE_SECONDS = 1.0
RELAY = "sb3_walle relay"


class Relay:
    """A thread with an event loop for all links: chunks arrive, and hosts are watched, while the learner computes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=RELAY, daemon=True)
        self._thread.start()

    def call_soon(self, function: Callable[[], object]) -> None:
        """
        :param function: what the thread calls next
        """
        self._loop.call_soon_threadsafe(function)

    def begin(self, task: Coroutine[Any, Any, None]) -> None:
        """
        :param task: what the thread does from now on, beside everything else
        """
        asyncio.run_coroutine_threadsafe(task, self._loop)

    def close(self) -> None:
        """End the thread, and what it has begun."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Link:
    """
    The link to one host. Commands travel in their order, as many in one message as there are by then.

    :param host: the host's actor
    :param node: where it runs
    :param relay: the thread that does the work
    :param heartbeat_timeout: seconds without news after which the host counts as lost
    :param on_news: told of all news, in the relay's thread
    :param on_loss: told once why the host is lost, in the relay's thread
    """

    def __init__(
        self,
        host: ActorHandle,
        node: Node,
        relay: Relay,
        heartbeat_timeout: float,
        on_news: Callable[[HostNews], None],
        on_loss: Callable[["Link", BaseException], None],
    ) -> None:
        self.host, self.node = host, node
        #: numbers of the samplers that run on this host
        self.samplers: set[int] = set()
        #: for how long environments have been making their present step, by number of the sampler
        self.seconds_at_step: dict[int, float] = {}
        #: of what the host warns of, how much has arrived
        self.n_warnings = 0
        self._relay, self._timeout = relay, heartbeat_timeout
        self._on_news, self._on_loss = on_news, on_loss
        self._outbox: deque[tuple[str, tuple]] = deque()
        self._is_lost = self._is_watched = False

    def watch(self) -> None:
        """Take in news and watch over the host from now on, when it is known to have started."""
        self._is_watched = True
        self._relay.begin(self._take_in_news())
        self._relay.begin(self._listen_to_heart())

    @property
    def is_at_work(self) -> bool:
        """Whether the host has started, and is not lost or abandoned."""
        return self._is_watched and not self._is_lost

    def command(self, name: str, *args: Any) -> None:
        """
        :param name: name of one of the host's commands
        :param args: its arguments
        """
        self._outbox.append((name, args))
        self._relay.call_soon(self._pass_on)

    def abandon(self) -> None:
        """Take in no more news. Nothing is told of the host from now on."""
        self._is_lost = True

    def _pass_on(self) -> None:
        commands = []
        while self._outbox:
            commands.append(self._outbox.popleft())
        if commands and not self._is_lost:
            try:
                self._relay.begin(self._confirm(self.host.carry_out.remote(commands)))
            except Exception as error:
                self._lose(error)

    async def _confirm(self, done: Any) -> None:
        try:
            await done
        except Exception as error:
            self._lose(error)

    async def _take_in_news(self) -> None:
        while not self._is_lost:
            try:
                news = await _result(self.host.poll.remote())
                if not self._is_lost:
                    self.seconds_at_step = dict(news.seconds_at_step)
                    self.n_warnings += len(news.warnings)
                    self._on_news(news)
            except Exception as error:
                self._lose(error)
            # Its arrays are views of Ray's object store.
            news = None

    async def _listen_to_heart(self) -> None:
        while not self._is_lost:
            beat = asyncio.ensure_future(_result(self.host.beat.remote()))
            done, _ = await asyncio.wait({beat}, timeout=self._timeout)
            if not done:
                # The learner's process may have been stopped for that long itself: what has arrived is seen now.
                done, _ = await asyncio.wait({beat}, timeout=GRACE_SECONDS)
            if not done:
                self._lose(TimeoutError(f"has not been heard of for {self._timeout:g} s"))
                beat.cancel()
            elif (error := beat.exception()) is not None:
                self._lose(error)
            await asyncio.sleep(BEAT_SECONDS)

    def _lose(self, error: BaseException) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_loss(self, error)


async def _result(reference: Any) -> Any:
    return await reference
