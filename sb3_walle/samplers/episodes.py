"""Whole episodes: which of them a sampler gives to a rollout, and how many it has completed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sb3_walle.transport.chunk import Chunk


@dataclass(frozen=True)
class EpisodeShare:
    """
    The whole episodes that a sampler gives to one rollout.

    :param until: how many episodes of the run the sampler has completed when it has given the last of them
    :param version: policy version to collect them with
    """

    until: int
    version: int


@dataclass(frozen=True)
class CompletedEpisodes:
    """
    How many episodes a sampler has completed, the samplers before it in the same place included.

    :param run: in this collection run
    :param number: how many
    """

    run: int = -1
    number: int = 0

    def after(self, run: int, n_episodes: int) -> "CompletedEpisodes":
        """:return: the same after further episodes of a run; of an earlier run, none count"""
        return CompletedEpisodes(run, n_episodes + (self.number if run == self.run else 0))

    def next_share(self, shares: Sequence[EpisodeShare]) -> EpisodeShare | None:
        """:return: the first of some shares that is not complete"""
        return next((share for share in shares if share.until > self.number), None)


class EndOfShare:
    """
    Says when the last episode of a sampler's share has ended. The sampler has one environment.

    :param chunk: the chunk that is being filled
    :param n_episodes: how many episodes are missing from the share when the chunk begins
    """

    def __init__(self, chunk: Chunk, n_episodes: int) -> None:
        self._episode_starts = chunk.episode_starts[:, 0]
        self._n_missing = n_episodes

    def __call__(self, step: int) -> bool:
        if self._episode_starts[step]:
            self._n_missing -= 1
        return self._n_missing == 0
