"""What a plant sees, written down by the plant itself, so that no contender can hide anything."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np


class Tick(NamedTuple):
    """
    A period of the plant's clock.

    :param due: when it ended by the clock
    :param lateness: seconds by which the plant itself was late then
    :param is_fresh: whether an action arrived in it
    """

    due: float
    lateness: float
    is_fresh: bool


class ReceivedAction(NamedTuple):
    """
    :param time: when it arrived
    :param tick: number of the tick in which it arrived
    :param age: seconds since the plant has sent the observation before it; not a number for the first action of an
        episode
    :param client: process that sent it
    :param value: the action
    """

    time: float
    tick: int
    age: float
    client: int
    value: tuple[float, ...]


class Episode(NamedTuple):
    """
    :param ended: when
    :param n_ticks: ticks of the plant until then, of all episodes
    :param episode_return: sum of its rewards, also of those that no client has seen
    """

    ended: float
    n_ticks: int
    episode_return: float


class Departure(NamedTuple):
    """
    The end of a connection.

    :param time: when
    :param client: process of the client
    :param said_so: whether the client closed its environment
    """

    time: float
    client: int
    said_so: bool


@dataclass
class PlantRecord:
    """
    All times are of ``time.perf_counter()``, which all processes of a machine share.

    :param period: seconds between two ticks
    :param scheduling: how the kernel schedules the plant's process
    :param parked: seconds at rest, from the end of an episode to the first action of the next
    """

    period: float
    scheduling: str = ""
    ticks: list[Tick] = field(default_factory=list)
    actions: list[ReceivedAction] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    safe_stops: list[float] = field(default_factory=list)
    parked: float = 0.0

    def until(self, n_ticks: int) -> "PlantRecord":
        """:return: what was written down until a tick"""
        ticks, actions = self.ticks[:n_ticks], [action for action in self.actions if action.tick < n_ticks]
        episodes = [episode for episode in self.episodes if episode.n_ticks <= n_ticks]
        return replace(self, ticks=ticks, actions=actions, episodes=episodes)


class Spread(NamedTuple):
    """Median, 99th percentile and maximum; not numbers of nothing."""

    p50: float
    p99: float
    largest: float


@dataclass(frozen=True)
class PlantStatistics:
    """
    :param n_ticks: ticks while the plant moved
    :param missed: share of them without a fresh action
    :param longest_gap: most ticks from one fresh action to the next
    :param ages: seconds from an observation to the action that follows it
    :param periods: seconds between two actions of an episode
    :param lateness: 99th percentile of the seconds by which the plant was late itself
    :param parked: seconds at rest
    """

    n_ticks: int
    missed: float
    longest_gap: int
    ages: Spread
    periods: Spread
    lateness: float
    parked: float


def statistics(record: PlantRecord) -> PlantStatistics:
    """
    :raises ValueError: if the plant has never moved
    """
    if not record.ticks:
        raise ValueError("The plant has never moved: no action has arrived.")
    is_fresh = np.array([tick.is_fresh for tick in record.ticks])
    return PlantStatistics(
        len(is_fresh),
        1 - float(is_fresh.mean()),
        1 + longest_run(~is_fresh),
        spread(np.array([action.age for action in record.actions])),
        spread(periods(record)),
        float(np.quantile([tick.lateness for tick in record.ticks], 0.99)),
        record.parked,
    )


def periods(record: PlantRecord) -> np.ndarray:
    """:return: seconds between actions that follow each other in an episode"""
    times = np.array([action.time for action in record.actions])
    is_first = np.isnan([action.age for action in record.actions])
    return np.diff(times)[~is_first[1:]]


def longest_run(marks: np.ndarray) -> int:
    """:return: most of the marks that are set in a row"""
    # Between two marks that are not set, with one more before the first and after the last.
    unset = np.flatnonzero(~np.concatenate([[False], marks, [False]]))
    return int(np.diff(unset).max()) - 1


def spread(values: np.ndarray) -> Spread:
    """:param values: those that are not numbers are left out"""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Spread(*(float("nan"),) * 3)
    return Spread(*map(float, np.quantile(values, (0.5, 0.99, 1))))
