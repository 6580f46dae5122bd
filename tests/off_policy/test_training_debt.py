"""How much training is due, and what is taken before it."""

import pytest
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_walle.off_policy.training_debt import SECONDS_TO_CATCH_UP, TrainingDebt

STEP, EPISODE = TrainFrequencyUnit.STEP, TrainFrequencyUnit.EPISODE


def test_waits_for_as_many_steps_as_make_a_training_due() -> None:
    debt = TrainingDebt(TrainFreq(4, STEP), 2, n_envs=1)
    assert debt.rollout_before_training(n_ready=0) == TrainFreq(4, STEP)
    debt.add_steps(3, 0)
    assert debt.next_training == 0
    assert debt.rollout_before_training(n_ready=0) == TrainFreq(1, STEP)
    debt.add_steps(1, 0)
    assert debt.next_training == 2


def test_takes_all_that_is_ready_and_catches_up() -> None:
    debt = TrainingDebt(TrainFreq(4, STEP), 2, n_envs=1)
    assert debt.rollout_before_training(n_ready=13) == TrainFreq(13, STEP)
    debt.add_steps(13, 0)
    for _ in range(3):
        assert debt.next_training == 2
        assert debt.rollout_before_training(n_ready=0) is None
        debt.pay()
    assert (debt.n_asked, debt.n_made, debt.next_training) == (6, 6, 0)
    assert debt.rollout_before_training(n_ready=1) == TrainFreq(3, STEP)


@pytest.mark.parametrize(("unit", "expected"), [(STEP, 3 * 2), (EPISODE, 50 * 1)])
def test_as_many_gradient_steps_as_steps(unit: TrainFrequencyUnit, expected: int) -> None:
    n_envs = 2 if unit is STEP else 1
    debt = TrainingDebt(TrainFreq(3 if unit is STEP else 1, unit), -1, n_envs)
    debt.add_steps(3 if unit is STEP else 50, 1)
    assert debt.next_training == expected


def test_counts_episodes() -> None:
    debt = TrainingDebt(TrainFreq(2, EPISODE), 7, n_envs=1)
    assert debt.rollout_before_training(n_ready=0) == TrainFreq(2, EPISODE)
    debt.add_steps(30, 1)
    assert debt.rollout_before_training(n_ready=9) == TrainFreq(1, EPISODE)
    debt.add_steps(30, 1)
    assert debt.next_training == 7
    assert debt.rollout_before_training(n_ready=9) == TrainFreq(9, STEP)


def test_never_asks_for_more_than_the_largest_ratio() -> None:
    debt = TrainingDebt(TrainFreq(1, STEP), 4, n_envs=1, max_replay_ratio=1.5)
    for _ in range(100):
        debt.add_steps(1, 0)
    assert 145 <= debt.n_asked <= 150
    none = TrainingDebt(TrainFreq(1, STEP), 0, n_envs=1)
    none.add_steps(5, 0)
    assert none.next_training == 0 and none.rollout_before_training(n_ready=0) == TrainFreq(1, STEP)


def test_learner_that_stays_behind_is_told_once() -> None:
    now = 0.0
    debt = TrainingDebt(TrainFreq(1, STEP), 1, n_envs=1, clock=lambda: now)
    debt.add_steps(100, 0)
    debt.pay()
    now = SECONDS_TO_CATCH_UP
    with pytest.warns(UserWarning, match="2 of 100 after 30 s"):
        debt.pay()
    for _ in range(50):
        debt.pay()
