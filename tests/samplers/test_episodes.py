"""What a sampler owes of whole episodes, and what its successor knows of it."""

import gymnasium as gym
import pytest
from toy_envs import StampedEnv

from sb3_walle.samplers.episode_limit import limit_episodes, own_limit
from sb3_walle.samplers.episodes import CompletedEpisodes, EpisodeShare
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.monitor import monitored
from sb3_walle.samplers.requests import Collect, Configure
from sb3_walle.samplers.sampler import CollectionSettings
from sb3_walle.samplers.succession import SetupRequests
from sb3_walle.samplers.tickets import ChunkReport, Ticket
from sb3_walle.transport.chunk import Seal

SHARES = (EpisodeShare(2, version=3), EpisodeShare(5, version=4))


class _Actor:
    """Stands for the actor of any sampler in the same place."""

    def for_successor(self, incarnation: int) -> "_Actor":
        return self


@pytest.mark.parametrize(("n_completed", "version"), [(0, 3), (1, 3), (2, 4), (4, 4), (5, None)])
def test_the_first_share_that_is_not_complete_is_next(n_completed: int, version: int | None) -> None:
    share = CompletedEpisodes(1, n_completed).next_share(SHARES)
    assert (None if share is None else share.version) == version


def test_episodes_count_within_a_run() -> None:
    completed = CompletedEpisodes().after(1, 2).after(1, 3)
    assert completed == CompletedEpisodes(1, 5)
    assert completed.after(2, 1) == CompletedEpisodes(2, 1)


def test_a_successor_is_told_what_was_delivered_in_this_run() -> None:
    setup = SetupRequests()
    setup.note(Configure(CollectionSettings(_Actor(), None, squash_output=False)))  # type: ignore[arg-type]
    for number, (run, n_episodes, delivered) in enumerate([(1, 4, True), (2, 1, True), (2, 2, True), (2, 9, False)]):
        ticket = Ticket(number, run, 0, 8, None, None, InfoSelection(), SHARES)
        seal = Seal(number, 3, 8) if delivered else None
        setup.note(Collect(ticket), ChunkReport(number, 0, seal, None, 0.0, 0.0, n_episodes))
    (configure,) = setup.for_successor(1)
    assert isinstance(configure, Configure)
    assert (configure.completed, configure.n_steps) == (CompletedEpisodes(2, 3), 24)


def test_a_limit_is_set_inside_of_the_monitor_and_taken_away() -> None:
    env = monitored(StampedEnv(episode_length=9))
    for limit, expected in ((4, 4), (6, 6), (None, 9)):
        limit_episodes([env], limit)
        env.reset()
        n_steps, ended = 0, False
        while not ended:
            _, _, terminated, truncated, info = env.step(0)
            n_steps, ended = n_steps + 1, terminated or truncated
        assert n_steps == info["episode"]["l"] == expected and truncated == (limit is not None)


def test_a_limit_that_an_environment_has_is_known() -> None:
    assert own_limit(monitored(gym.make("Pendulum-v1"))) == 200
    assert own_limit(gym.wrappers.TimeLimit(gym.make("Pendulum-v1"), 50)) == 50
    assert own_limit(StampedEnv()) is None
