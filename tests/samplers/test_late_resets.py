"""Vectorised environments that reset some rows while others step: what is recorded are real steps, without gaps."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from late_vector_env import NextStep
from stable_baselines3.common.vec_env import VecNormalize
from test_sampler import Bench, Clockwork, T, assert_rows_line_up, clocks, infos_of

from sb3_walle import AsyncPPO, SamplerVecEnv


def bench_of(
    lengths: Sequence[int], on_step: Callable[[int], None] = lambda _: None, as_dict: bool = False
) -> tuple[Bench, list[NextStep]]:
    """A sampler with clocks of these episode lengths, every other one of which ends by truncation."""
    built: list[NextStep] = []

    def vectorized(clocks: Sequence[Clockwork]) -> NextStep:
        built.append(NextStep(clocks))
        return built[-1]

    clocks = [
        Clockwork(env, length, truncates=env % 2 == 1, as_dict=as_dict, on_step=on_step if env == 0 else lambda _: None)
        for env, length in enumerate(lengths)
    ]
    return Bench(clocks, vectorized=vectorized), built


def place(row: np.ndarray, length: int) -> int:
    """How many steps a clock has made when it shows this."""
    return int(row[1]) * length + int(row[2])


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, T), min_size=1, max_size=6),
    as_dict=st.booleans(),
)
def test_chunks_hold_consecutive_real_steps_of_every_environment(
    lengths: list[int], sizes: list[int], as_dict: bool
) -> None:
    bench, _ = bench_of(lengths, as_dict=as_dict)
    last = np.array([[env, 0, 0] for env in range(len(lengths))])
    for number, n_steps in enumerate(sizes):
        report = bench.collect(n_steps=n_steps, slot=number % 2, all_infos=True)
        chunk = bench.chunk(report)
        assert chunk.n_steps == n_steps
        assert_rows_line_up(chunk, lengths)
        rows = clocks(chunk)
        for env, length in enumerate(lengths):
            # It continues where the last chunk ended, or later and is marked as a beginning.
            n_left_out = place(rows[0, env], length) - place(last[env], length)
            assert n_left_out >= 0
            assert chunk.episode_starts[0, env] == (n_left_out > 0 or rows[0, env, 2] == 0)
            ends = rows[1:, env, 2] == 0
            cut = chunk.arrays["bootstraps"][:n_steps, env]
            expected = [[env, episode, length] if end and env % 2 else [-1] * 3 for (_, episode, _), end in zip(
                rows[:-1, env].tolist(), ends.tolist(), strict=True)]  # fmt: skip
            assert cut.tolist() == expected
        assert_infos_are_of_the_recorded_steps(infos_of(report), rows, lengths)
        last = rows[-1]


def assert_infos_are_of_the_recorded_steps(infos: list[Any], rows: np.ndarray, lengths: Sequence[int]) -> None:
    assert [(step, env) for step, env, _ in infos] == [
        (step, env) for step in range(len(rows) - 1) for env in range(len(lengths))
    ]
    for step, env, info in infos:
        _, episode, at = rows[step, env].tolist()
        length = lengths[env]
        assert info["n"] == episode * length + at + 1
        done = at + 1 == length
        assert info["TimeLimit.truncated"] == (done and env % 2 == 1)
        assert ("terminal_observation" in info) == ("episode" in info) == done
        if done:
            last = info["terminal_observation"]
            assert np.array_equal(last["clock"] if isinstance(last, dict) else last, [env, episode, length])
            reward = sum(100.0 * episode + step for step in range(1, length + 1))
            assert (info["episode"]["r"], info["episode"]["l"]) == (reward, length)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [2, 3, 100], [1, 4, 4]])
def test_no_more_calls_are_made_than_the_environment_with_most_resets_takes(lengths: list[int]) -> None:
    bench, (env,) = bench_of(lengths)
    chunk = bench.collect_chunk()
    assert env.n_calls == T + chunk.dones.sum(axis=0).max()
    rows = clocks(chunk)
    # Where all are reset at once, none makes a step that is left out.
    n_left_out = [clock.n_steps - place(rows[-1, row], lengths[row]) for row, clock in enumerate(env.envs)]
    assert (max(n_left_out) == 0) == (len(set(lengths)) == 1)


@pytest.mark.parametrize("at", range(2 * T))
def test_environments_continue_after_a_chunk_that_was_abandoned(at: int) -> None:
    lengths = [3, 4, 100]
    bench, _ = bench_of(lengths, on_step=lambda n: bench.queues.control.start_run() if n == at else None)
    reports = [bench.collect(), bench.collect(slot=1), bench.collect(slot=0)]
    assert [report.seal is None for report in reports].count(True) == 1
    for report in reports[1:]:
        if report.seal is not None:
            assert_rows_line_up(bench.chunk(report), lengths)


@pytest.mark.parametrize("at", range(6))
def test_chunk_that_is_due_ends_with_steps_that_all_have_made(at: int) -> None:
    lengths = [1, 2, 100]
    bench, _ = bench_of(lengths, on_step=lambda n: bench.publish(1) if n == at else None)
    report = bench.collect(max_policy_lag=1)
    chunk = bench.chunk(report)
    assert report.seal is not None and 1 <= report.seal.n_steps < T
    assert_rows_line_up(chunk, lengths)
    assert_rows_line_up(bench.collect_chunk(slot=1), lengths)


def test_wrapper_with_a_memory_says_what_to_do() -> None:
    from stable_baselines3.common.vec_env import VecFrameStack

    def vectorized(n: int) -> NextStep:
        return NextStep([Clockwork(row) for row in range(n)])

    with pytest.raises(TypeError, match=r"VecFrameStack cannot be around .*\.AutoresetMode\.SAME_STEP"):
        AsyncPPO("MlpPolicy", VecFrameStack(SamplerVecEnv([vectorized] * 2, 2, "inline"), 2), n_steps=4)
    with pytest.raises(TypeError, match=r"vec_wrapper cannot be around .*\.AutoresetMode\.SAME_STEP"):
        SamplerVecEnv([vectorized] * 2, 2, "inline", vec_wrapper=lambda venv: VecFrameStack(venv, 2))


class Floating(Clockwork):
    """Shows the same as numbers that can be normalised, and rewards with a number of their own."""

    def __init__(self, number: int, length: int) -> None:
        super().__init__(number, length)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def observe(self) -> np.ndarray:
        return super().observe().astype(np.float32)


def normalized_training(build: Callable[[int], Any], n_envs: int) -> VecNormalize:
    env = VecNormalize(SamplerVecEnv([build] * n_envs, n_envs, "inline"))
    model = AsyncPPO("MlpPolicy", env, n_steps=16, n_epochs=1, batch_size=16, learner="eager", seed=1)
    model.learn(3 * 16 * n_envs)
    assert model.num_timesteps == 3 * 16 * n_envs
    return env


def test_statistics_to_normalise_with_are_those_of_environments_that_reset_at_once() -> None:
    """Where all episodes end together, both make the same steps."""

    def late(n: int) -> NextStep:
        return NextStep([Floating(row, 5) for row in range(n)])

    def at_once(n: int) -> gym.vector.VectorEnv:
        return gym.vector.SyncVectorEnv(
            [lambda row=row: Floating(row, 5) for row in range(n)], autoreset_mode=AutoresetMode.SAME_STEP
        )

    some, others = normalized_training(late, 2), normalized_training(at_once, 2)
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(getattr(some.obs_rms, name), getattr(others.obs_rms, name))
        np.testing.assert_array_equal(getattr(some.ret_rms, name), getattr(others.ret_rms, name))


def test_statistics_to_normalise_with_count_recorded_steps_only() -> None:
    env = normalized_training(lambda n: NextStep([Floating(row, 3 + row) for row in range(n)]), 3)
    # SB3 counts the first observation of each environment, too, and begins with a count of 1e-4.
    assert env.obs_rms.count == pytest.approx(3 * 16 * 3 + 3)
    assert env.ret_rms.count == pytest.approx(3 * 16 * 3)
