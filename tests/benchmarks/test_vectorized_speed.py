"""The benchmark of vectorised environments: that it measures all contenders, and that its report can be read."""

import pytest

from benchmarks.speed.measurements import Medians
from benchmarks.vectorized import BARS, PoolVecEnv, Settings, measure_once, pool, report


def test_every_contender_is_measured_and_compared() -> None:
    pytest.importorskip("envpool")
    found = list(measure_once(Settings(n_envs=2, n_samplers=1, n_steps=8, rollouts=1)))
    assert all(rate > 0 for _, _, rate in found)
    medians = Medians(found)
    for quantity, (ours, bars) in BARS.items():
        assert {ours, *bars} == set(medians.of(quantity))


def test_report_has_ratios_and_bars() -> None:
    rates = {ours: 900.0 for ours, _ in BARS.values()} | {name: 1000.0 for _, bars in BARS.values() for name in bars}
    found = [(quantity, name, rates[name]) for quantity, (ours, bars) in BARS.items() for name in (ours, *bars)]
    text = report(Medians(found))
    assert text.count("0.90x") == 3 and "0.9x" in text and "2.5x" in text and "4.0x" in text


def test_sb3_is_told_of_ends_and_first_observations() -> None:
    pytest.importorskip("envpool")
    import envpool
    import numpy as np

    env = PoolVecEnv(envpool.make("CartPole-v1", env_type="gymnasium", num_envs=2, max_episode_steps=3))
    env.reset()
    steps = [env.step(np.array([0, 1])) for _ in range(4)]
    assert [dones.tolist() for _, _, dones, _ in steps] == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    observations, _, _, infos = steps[2]
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert np.abs(observations).max() < 0.051 < np.abs(infos[0]["terminal_observation"]).max()


def test_pools_have_seeds() -> None:
    pytest.importorskip("envpool")
    assert pool(2, seed=3).config["seed"] == 3
