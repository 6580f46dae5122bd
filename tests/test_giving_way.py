"""How much samplers, and what their environments have started, give way to the learner."""

import os
import subprocess
from typing import Any

import pytest

from sb3_walle import AsyncPPO
from tests.toy_envs import StampedEnv


class WithSimulator(StampedEnv):
    """An environment that has started a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._simulator = subprocess.Popen(["sleep", "600"])

    def niceness(self) -> list[int]:
        """Of the sampler and of the process that the environment has started."""
        return [os.getpriority(os.PRIO_PROCESS, pid) for pid in (os.getpid(), self._simulator.pid)]

    def close(self) -> None:
        self._simulator.kill()
        self._simulator.wait()


def niceness_after_learning(**kwargs: Any) -> list[list[int]]:
    with AsyncPPO("MlpPolicy", WithSimulator, n_samplers=2, n_steps=8, batch_size=16, device="cpu", **kwargs) as model:
        model.learn(16)
        env = model.get_env()
        assert env is not None
        return env.env_method("niceness")


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_samplers_give_way_to_an_update_beside_which_they_collect(mode: str) -> None:
    assert niceness_after_learning(mode=mode) == [[19, 19]] * 2


def test_samplers_that_wait_for_updates_have_nothing_to_give_way_to() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness_after_learning(mode="sync") == [[own, own]] * 2
