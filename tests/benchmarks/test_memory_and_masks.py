"""The benchmarks of LSTM policies and action masks: who takes part, on what, and that the report can be read."""

import gymnasium as gym
import numpy as np

from benchmarks.memory_and_masks import BARS, TASKS, Settings, contenders, report
from benchmarks.memory_envs import POLE_WITHOUT_VELOCITIES
from benchmarks.memory_returns import MemoryReturns
from benchmarks.speed.measurements import Medians


def test_report_compares_with_the_better_vec_env() -> None:
    found = [
        (quantity, name, 1000.0 * (1 + number))
        for quantity in BARS
        for task in TASKS.values()
        for number, name in enumerate(contenders(task, Settings()))
    ]
    text = report(Medians(found))
    # Theirs are 1,000 and 2,000, ours 3,000 and 4,000.
    assert text.count("0.50x") == text.count("1.00x") == text.count("1.50x") == text.count("2.00x") == 4
    assert text.count("bar of ours: 2.5x") == text.count("bar of ours: 1.0x") == 2


def test_the_pole_shows_no_velocities_and_has_the_usual_time_limit() -> None:
    env = gym.make(POLE_WITHOUT_VELOCITIES)
    observation, _ = env.reset(seed=0)
    assert (observation[[1, 3]] == 0).all() and (observation[[0, 2]] != 0).all()
    assert env.spec is not None and env.spec.max_episode_steps == 500
    np.testing.assert_array_equal(env.step(0)[0][[1, 3]], 0)


def test_returns_are_of_the_same_policy_and_arguments() -> None:
    theirs, *ours = MemoryReturns(POLE_WITHOUT_VELOCITIES, n_samplers=2, envs_per_sampler=4).trainees()
    assert theirs.name == "RecurrentPPO, DummyVecEnv(8)"
    assert [trainee.name for trainee in ours] == ["AsyncRecurrentPPO, 2 x 4, pipelined"]
    assert ours[0].arguments == {**theirs.arguments, "info_keys": ()}
