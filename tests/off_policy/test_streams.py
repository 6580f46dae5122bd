"""The columns of a replay buffer hold whole streams, in every mode, in every buffer of SB3, whichever env is slow."""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from off_policy_pairs import tiny
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from stamped_envs import Faint, Stamped, StampedGoal

from sb3_walle import AsyncDQN, SamplerVecEnv
from sb3_walle.collection.modes import MODES
from sb3_walle.collection.stream_plan import RUN_STEPS
from sb3_walle.off_policy.cuts import cut_off, replace_unfinished_episode

SLOW_SECONDS = 0.004
# So slow that others are far ahead of it, however busy the machine is.
VERY_SLOW_SECONDS = 0.03


BUFFERS: dict[str, dict[str, Any]] = {
    "ReplayBuffer": {},
    "without timeouts": {"replay_buffer_kwargs": {"handle_timeout_termination": False}},
    "less memory": {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
    "DictReplayBuffer": {"policy": "MultiInputPolicy"},
    "NStepReplayBuffer": {"n_steps": 3},
    "n steps without timeouts": {"n_steps": 3, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    "HerReplayBuffer": {"policy": "MultiInputPolicy", "replay_buffer_class": HerReplayBuffer},
}
LENGTHS = (200, 30, 90, 150)


def collected(
    mode: str,
    timesteps: int,
    envs_per_sampler: int = 1,
    lengths: tuple[int, ...] = LENGTHS,
    slowest: float = SLOW_SECONDS,
    **arguments: Any,
) -> AsyncDQN:
    """A model with what it has collected, from environments of different speed. It has not been trained."""
    policy = arguments.pop("policy", "MlpPolicy")
    kind = StampedGoal if policy == "MultiInputPolicy" else Stamped
    # Ordered modes wait for the slowest: there, all of them are fast.
    delays = (slowest, 0.0, 0.0005, 0.0) if mode == "free" else (0.0,) * 4

    factories = [partial(kind, env, lengths[env], delays[env]) for env in range(4)]
    backend = "process" if mode == "free" else "inline"
    env = SamplerVecEnv(factories, envs_per_sampler=envs_per_sampler, backend=backend)
    settings = {**tiny(), "buffer_size": 40_000, "learning_starts": 10**6, "learner": "eager", **arguments}
    with AsyncDQN(policy, env, mode=mode, **settings) as model:
        model.learn(timesteps)
    assert timesteps <= model.num_timesteps < timesteps + 4 * model.train_freq.frequency
    return model


def check_streams(buffer: ReplayBuffer, lengths: tuple[int, ...] = LENGTHS) -> int:
    """
    That every transition is what its environment did, none comes twice, and what follows in a column continues it or
    comes after an end, or after a mark, of which there are few. Returns the number of marks.
    """
    stored = buffer.observations
    stamps = stored["observation"] if isinstance(stored, dict) else stored
    stamps, n_rows, n_cuts = stamps[: buffer.pos], buffer.pos, 0
    assert len(np.unique(stamps.reshape(-1, 3), axis=0)) == stamps.shape[0] * stamps.shape[1]
    if not buffer.optimize_memory_usage:
        reached = buffer.next_observations
        reached = reached["observation"] if isinstance(reached, dict) else reached
        assert np.array_equal(reached[:n_rows], stamps + np.array([0, 0, 1], np.float32))
    for env in range(buffer.n_envs):
        cuts = []
        for row in range(n_rows):
            identity, episode, step = stamps[row, env]
            is_end = step + 1 == lengths[int(identity)]
            done, timeout = bool(buffer.dones[row, env]), bool(buffer.timeouts[row, env])
            is_cut = done and not is_end
            # Terminal where the episode has ended, truncated where it was cut.
            assert done == (is_end or is_cut) and timeout == is_cut
            cuts += [row] * is_cut
            if not done and row + 1 < n_rows:
                assert stamps[row + 1, env].tolist() == [identity, episode, step + 1]
        assert all(later - earlier >= RUN_STEPS for earlier, later in pairwise(cuts))
        assert not cuts or not buffer.optimize_memory_usage
        n_cuts += len(cuts)
    return n_cuts


# What differs between buffers is what becomes of cuts, which only mode "free" makes.
STREAMS = [
    *((name, "free", 1) for name in BUFFERS),
    ("less memory", "free", 2),
    *(
        (name, mode, 1 + (i + j) % 2)
        for i, name in enumerate(BUFFERS)
        for j, mode in enumerate(MODES)
        if mode != "free"
    ),
]


@pytest.mark.parametrize(("name", "mode", "envs_per_sampler"), STREAMS)
def test_streams_stay_whole(name: str, mode: str, envs_per_sampler: int) -> None:
    can_share = envs_per_sampler == 1 and name != "less memory"
    slowest = VERY_SLOW_SECONDS if can_share else SLOW_SECONDS
    model = collected(mode, 1_200, envs_per_sampler, slowest=slowest, **BUFFERS[name])
    assert model.replay_buffer.pos * 4 == model.num_timesteps
    n_cuts = check_streams(model.replay_buffer)
    owners = column_owners(model.replay_buffer)
    if mode != "free":
        assert n_cuts == 0 and (owners == np.arange(4)).all()
    elif can_share:
        # The slow environment's column is shared: otherwise nothing was tested.
        assert len(np.unique(owners[:, 0])) > 1


def column_owners(buffer: ReplayBuffer) -> np.ndarray:
    stored = buffer.observations
    return (stored["observation"] if isinstance(stored, dict) else stored)[: buffer.pos, :, 0]


@pytest.mark.parametrize("train_freq", [1, 32])
def test_whole_episodes_move_where_none_can_be_cut(train_freq: int) -> None:
    lengths = (20, 30, 25, 15)
    arguments = {"train_freq": train_freq, **BUFFERS["less memory"]}
    model = collected("free", 2_400, lengths=lengths, slowest=VERY_SLOW_SECONDS, **arguments)
    assert check_streams(model.replay_buffer, lengths) == 0
    assert len(np.unique(column_owners(model.replay_buffer)[:, 0])) > 1


def test_n_step_returns_are_of_n_steps() -> None:
    buffer = collected("free", 2_000, lengths=(300, 200, 250, 200), **BUFFERS["NStepReplayBuffer"]).replay_buffer
    assert isinstance(buffer, NStepReplayBuffer)
    rewards = buffer.sample(4_000).rewards
    assert (rewards > 2.9).float().mean() > 0.95


def test_hindsight_looks_as_far_ahead_as_in_sb3() -> None:
    """Goals are as many steps ahead as in SB3: on average a quarter of the length of an episode, less what was cut."""
    distances = {}
    for mode in ("sync", "free"):
        lengths = (40, 40, 40, 40)
        buffer = collected(mode, 2_400, lengths=lengths, **BUFFERS["HerReplayBuffer"]).replay_buffer
        sample = buffer.sample(4_000)
        n_virtual = int(buffer.her_ratio * 4_000)
        ahead = sample.observations["desired_goal"] - sample.next_observations["achieved_goal"]
        distances[mode] = float(ahead[:n_virtual].mean())
    assert distances["free"] > 0.8 * distances["sync"]


@pytest.mark.parametrize(("name", "max_policy_lag"), [("ReplayBuffer", 1), ("less memory", 5), ("ReplayBuffer", 150)])
def test_a_bound_of_the_policy_lag_tears_no_stream(name: str, max_policy_lag: int) -> None:
    model = collected("free", 800, max_policy_lag=max_policy_lag, **BUFFERS[name])
    buffer, lengths = model.replay_buffer, LENGTHS
    for env in range(4):
        column = buffer.observations[: buffer.pos, env]
        for row, (before, after) in enumerate(pairwise(column)):
            is_end = before[2] + 1 == lengths[int(before[0])]
            is_cut = not is_end and after.tolist() != [before[0], before[1], before[2] + 1]
            assert bool(buffer.dones[row, env]) == (is_end or is_cut)
            assert bool(buffer.timeouts[row, env]) == is_cut
            assert not is_cut or not model.optimize_memory_usage
    if not model.optimize_memory_usage:
        assert model._experience.collector.statistics.policy_lag_max <= max_policy_lag


@pytest.mark.parametrize("name", ["ReplayBuffer", "less memory"])
def test_values_are_those_of_the_task(name: str) -> None:
    """A critic that takes cuts for the ends of episodes learns values of little more than 1."""
    delays = (0.002, 0.0, 0.001, 0.0)
    env = SamplerVecEnv([partial(Faint, env, 200, delays[env]) for env in range(4)])
    settings: dict[str, Any] = {"gamma": 0.8, "learning_rate": 0.02, "target_update_interval": 40, "train_freq": 1}
    arguments = {**tiny(), **settings, **BUFFERS[name], "learner": "eager"}
    with AsyncDQN("MlpPolicy", env, mode="free", **arguments) as model:
        model.learn(3_000)
        seen = th.tensor([[env, step, 0] for env in range(4) for step in (20, 100, 150)]) / 200
        with th.no_grad():
            values = model.q_net(seen).max(dim=1).values
    assert values.mean().item() == pytest.approx(5.0, abs=0.7)


def filled(n_rows: int, n_envs: int, buffer_size: int, ends: list[list[int]]) -> ReplayBuffer:
    """A buffer whose observations are their own row and column, as if each row led to the next."""
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    buffer = ReplayBuffer(
        buffer_size * n_envs, box, spaces.Discrete(2), "cpu", n_envs, True, handle_timeout_termination=False
    )
    for row in range(n_rows):
        observations = [np.array([[r, env] for env in range(n_envs)], np.float32) for r in (row, row + 1)]
        dones = np.array([row in ends[env] for env in range(n_envs)])
        buffer.add(*observations, np.zeros(n_envs), np.arange(n_envs) + 10.0 * row, dones, [{}] * n_envs)
    return buffer


@settings(deadline=None)
@given(data=st.data(), n_rows=st.integers(1, 40), n_envs=st.integers(1, 3), buffer_size=st.integers(3, 30))
def test_an_unfinished_episode_is_replaced_by_true_transitions(
    data: st.DataObject, n_rows: int, n_envs: int, buffer_size: int
) -> None:
    ends = [data.draw(st.lists(st.integers(0, n_rows - 1), max_size=4)) for _ in range(n_envs)]
    buffer = filled(n_rows, n_envs, buffer_size, ends)
    env, others = data.draw(st.integers(0, n_envs - 1)), buffer.observations.copy()
    replace_unfinished_episode(buffer, env)
    # What can be sampled, in its order: all but the row that is overwritten next.
    rows = np.arange(n_rows - min(n_rows, buffer_size - (n_rows >= buffer_size)), n_rows) % buffer_size
    if not any(end >= n_rows - len(rows) for column in ends for end in column):
        assert np.array_equal(buffer.observations, others)
        return
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        observation, done = buffer.observations[row, env], bool(buffer.dones[row, env])
        step, column = (int(word) for word in observation)
        # The transition is one that was made, and leads where it led.
        assert done == (step in ends[column]) and buffer.rewards[row, env] == column + 10 * step
        assert done or (after is not None and buffer.observations[after, env].tolist() == [step + 1, column])


def test_a_mark_does_not_outlive_its_step() -> None:
    """Buffers that do not handle time limits never clear their marks themselves."""
    model = collected("free", 2_000, buffer_size=4 * 250, **BUFFERS["without timeouts"])
    buffer = model.replay_buffer
    for row, env in np.argwhere(buffer.timeouts):
        identity, _, step = buffer.observations[row, env]
        assert buffer.dones[row, env] and step + 1 < LENGTHS[int(identity)]


def test_cutting_an_empty_buffer_changes_nothing() -> None:
    buffer = filled(0, 2, 5, [[], []])
    cut_off(buffer, np.array([True, True]))
    assert not buffer.dones.any()
