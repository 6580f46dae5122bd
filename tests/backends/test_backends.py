"""What ``backend=`` takes, and what samplers in the user's own process leave alone."""

import os
import random
from collections.abc import Iterable
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.backends import as_backend
from sb3_walle.backends.inline import InlineBackend, InlineSamplers
from sb3_walle.backends.supervision import Supervision
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import LearnerQueues

TINY = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu", "learner": "eager"}


class CountingSamplers(InlineSamplers):
    """Samplers of a backend of one's own."""

    n_queues = 0

    def open_queues(self, plan: QueuePlan) -> LearnerQueues:
        CountingSamplers.n_queues += 1
        return super().open_queues(plan)


class CountingBackend:
    """A backend of one's own."""

    shares_objects: ClassVar[bool] = True

    def __init__(self) -> None:
        self.launched: list[int] = []

    def n_cpus(self) -> float:
        return 1

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> CountingSamplers:
        self.launched.append(n_samplers)
        return CountingSamplers(n_samplers)


def test_a_backend_may_be_an_object() -> None:
    backend = CountingBackend()
    before = CountingSamplers.n_queues
    model = AsyncPPO("MlpPolicy", RandomWalk, n_samplers=3, backend=backend, **TINY).learn(100)
    assert backend.launched == [3]
    assert CountingSamplers.n_queues == before + 1
    model.set_env(RandomWalk)
    assert backend.launched == [3, 3]
    with SamplerVecEnv([RandomWalk] * 2, backend=backend) as env:
        assert env.reset().shape[0] == 2
    assert backend.launched == [3, 3, 2]


@pytest.mark.parametrize(
    ("backend", "error"), [("unknown", ValueError), (None, TypeError), (3, TypeError), (InlineBackend, TypeError)]
)
def test_anything_else_is_refused_with_what_is_allowed(backend: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"backend must be one of \('process', 'inline', 'ray'\)"):
        as_backend(backend)  # type: ignore[arg-type]
    with pytest.raises(error, match=r"backend must be one of \('process', 'inline', 'ray'\)"):
        AsyncPPO("MlpPolicy", RandomWalk, backend=backend, **TINY)


def test_inline_samplers_leave_the_users_random_streams_and_priority_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.getstate(), np.random.get_state()[1].tolist()
    priority = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.getsid(0)
    env = SamplerVecEnv([lambda: gym.make("CartPole-v1")] * 2, backend="inline")
    env.seed(5)
    env.reset()
    env.step(np.zeros(2, int))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == expected
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.getsid(0)) == priority
    env.close()
