"""What the learner orders of a sampler, and what the sampler reports of it."""

from dataclasses import dataclass

from sb3_walle.realtime.statistics import TickTimes
from sb3_walle.samplers.episodes import EpisodeShare
from sb3_walle.samplers.infos import InfoSelection, PackedInfos
from sb3_walle.transport.chunk import Seal


@dataclass(frozen=True)
class Ticket:
    """
    Permission to collect one chunk.

    :param number: the chunk's report carries the same number
    :param run: collection run that the ticket belongs to; the chunk is abandoned when another one has begun
    :param slot: slot of the experience queue to fill
    :param n_steps: number of steps to collect
    :param version: policy version to collect with, ``None`` for the newest at that moment
    :param max_policy_lag: end the chunk early once the learner is this many versions ahead, or once the chunk has taken
        as long as it should; ``None`` for never
    :param infos: which infos are passed on
    :param shares: where whole episodes are collected, what the sampler gives to the next rollouts: the chunk holds
        steps of the first share that is not complete, with the policy version of that share, and ends with it. If all
        are complete, there is nothing to collect
    """

    number: int
    run: int
    slot: int
    n_steps: int
    version: int | None
    max_policy_lag: int | None
    infos: InfoSelection
    shares: tuple[EpisodeShare, ...] = ()


@dataclass(frozen=True)
class ChunkReport:
    """
    What became of a ticket.

    :param ticket: number of the ticket
    :param slot: slot that was filled
    :param seal: what lies there; ``None`` if the chunk was abandoned, or there was nothing to collect
    :param infos: the infos that are passed on; ``None`` if there is no chunk
    :param began: when the sampler began it, by its ``perf_counter()``: all processes of a machine have the same clock
    :param ended: when it was complete
    :param n_episodes: where whole episodes are collected, how many of them have ended in the chunk
    :param run: in mode "realtime", the collection run that the chunk belongs to
    :param times: in mode "realtime", when its one step was made
    """

    ticket: int
    slot: int
    seal: Seal | None
    infos: PackedInfos | None
    began: float
    ended: float
    n_episodes: int = 0
    run: int | None = None
    times: TickTimes | None = None


@dataclass(frozen=True)
class DriveOrder:
    """
    What a sampler needs to make chunks of one step each without being asked for every one of them: mode "realtime".

    :param run: collection run that they belong to; the plant rests when another one has begun
    :param infos: which infos are passed on
    :param n_slots: slots of the experience queue, which the sampler fills in turn
    :param first_ticket: number of the first chunk
    """

    run: int
    infos: InfoSelection
    n_slots: int
    first_ticket: int = 0
