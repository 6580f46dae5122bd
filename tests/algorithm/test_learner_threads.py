"""How many threads the learner computes with while samplers are at work."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_walle import AsyncA2C, AsyncPPO, AsyncSAC
from sb3_walle.algorithm import experience_source


class Plain(gym.Env):
    """Rewards nothing, and shows zeros."""

    def __init__(self, shape: tuple[int, ...] = (3,)) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8 if len(shape) == 3 else np.float32)
        self.action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros_like(self.observation_space.sample()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros_like(self.observation_space.sample()), 0.0, False, False, {}


def image() -> gym.Env:
    return Plain((3, 36, 36))


@pytest.fixture
def four_cpus() -> Iterator[None]:
    n_threads = th.get_num_threads()
    th.set_num_threads(4)
    with mock.patch.object(experience_source, "available_cpus", lambda: 4):
        yield
    th.set_num_threads(n_threads)


def threads_of(model: Any, n_steps: int) -> set[int]:
    """Numbers of threads of all updates but the last, during which nothing is collected any more."""
    found, update = [], model._update

    def noted(*args: Any) -> None:
        found.append(th.get_num_threads())
        update(*args)

    model._update = noted
    with model:
        model.learn(n_steps)
    return set(found[:-1])


SAMPLERS: dict[str, Any] = {"n_samplers": 4, "mode": "pipelined", "learner": "eager", "device": "cpu"}
WIDE = {"net_arch": [256, 256]}


@pytest.mark.parametrize(
    ("rollout", "policy_kwargs", "n_threads"),
    [
        ({"n_steps": 64, "batch_size": 256, "n_epochs": 1}, {}, 1),
        ({"n_steps": 64, "batch_size": 256, "n_epochs": 1}, WIDE, 1),
        ({"n_steps": 64, "batch_size": 256, "n_epochs": 10}, WIDE, 2),
        ({"n_steps": 64, "batch_size": 64, "n_epochs": 10}, WIDE, 1),
    ],
    ids=["little to learn", "few epochs", "much to learn", "small minibatches"],
)
def test_samplers_leave_the_learner_more_threads_where_it_has_more_to_compute(
    four_cpus: None, rollout: dict[str, int], policy_kwargs: dict[str, Any], n_threads: int
) -> None:
    model = AsyncPPO("MlpPolicy", Plain, policy_kwargs=policy_kwargs, **rollout, **SAMPLERS)
    assert threads_of(model, 3 * 4 * 64) == {n_threads}


def test_images_are_much_to_compute(four_cpus: None) -> None:
    arguments = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"normalize_images": False}}
    assert threads_of(AsyncPPO("CnnPolicy", image, **arguments, **SAMPLERS), 3 * 4 * 4) == {2}


def test_gradient_steps_are_much_to_compute(four_cpus: None) -> None:
    model = AsyncSAC("MlpPolicy", Plain, learning_starts=0, gradient_steps=-1, **SAMPLERS)
    assert threads_of(model, 16) == {2}
    # One for each rollout of four environments.
    assert AsyncSAC("MlpPolicy", Plain, buffer_size=8, gradient_steps=1, **SAMPLERS)._samples_per_step() == 256 / 4


def test_without_samplers_at_work_there_is_no_limit(four_cpus: None) -> None:
    model = AsyncA2C("MlpPolicy", Plain, n_steps=8, **{**SAMPLERS, "mode": "sync"})
    assert threads_of(model, 2 * 4 * 8) == {4}
