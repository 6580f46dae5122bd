"""The log names what holds up training: the process that works longest."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_envs import StampedEnv
from training_pairs import logged_by

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv
from sb3_walle.collection.workload import bottleneck

N_SAMPLERS, N_STEPS = 3, 40
# Seconds. All else takes milliseconds.
SLOW_STEP, SLOW_UPDATE = 0.01, 0.5


class SlowUpdates(AsyncPPO):
    def train(self) -> None:
        time.sleep(SLOW_UPDATE)
        super().train()


class SlowDQN(AsyncDQN):
    def train(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.02)
        super().train(*args, **kwargs)


def samplers(delays: Sequence[float]) -> SamplerVecEnv:
    return SamplerVecEnv([partial(StampedEnv, n, max_delay=delay) for n, delay in enumerate(delays)])


def words(algorithm: type[AsyncPPO], mode: str, delays: Sequence[float], **settings: Any) -> list[str]:
    """What is logged of all iterations but the first, before which there was no update."""
    arguments = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 1, "device": "cpu", "learner": "eager"}
    with algorithm("MlpPolicy", samplers(delays), mode=mode, **{**arguments, **settings}) as model:
        lines = logged_by(model)
        model.learn(4 * N_STEPS * N_SAMPLERS)
    assert len(lines) == 4
    return [line["async/bottleneck"] for line in lines[1:]]


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_slow_environments(mode: str) -> None:
    assert words(AsyncPPO, mode, [SLOW_STEP] * N_SAMPLERS) == ["samplers"] * 3


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_slow_updates(mode: str) -> None:
    assert words(SlowUpdates, mode, [0.0] * N_SAMPLERS) == ["learner"] * 3


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
@pytest.mark.parametrize("slow", [0, 2])
def test_one_slow_environment(mode: str, slow: int) -> None:
    delays = [SLOW_STEP if sampler == slow else 0.0 for sampler in range(N_SAMPLERS)]
    assert words(AsyncPPO, mode, delays) == [f"slowest sampler {slow}"] * 3


def test_the_update_may_take_longer_than_the_slowest_sampler() -> None:
    assert words(SlowUpdates, "pipelined", [0.0, 0.002, 0.0]) == ["learner"] * 3


def test_in_mode_free_nothing_waits_for_a_slow_sampler() -> None:
    """It works all the time, and yet the update decides how long an iteration takes."""
    assert words(SlowUpdates, "free", [SLOW_STEP * 10, 0.0, 0.0], max_policy_lag=4) == ["learner"] * 3


@pytest.mark.parametrize(("delay", "is_learner"), [(0.05, False), (0.0, True)])
def test_off_policy_algorithms_sum_up_their_short_rollouts(delay: float, is_learner: bool) -> None:
    arguments: dict[str, Any] = {"learning_starts": 0, "train_freq": 4, "batch_size": 8, "mode": "sync"}
    with SlowDQN("MlpPolicy", samplers([delay] * 2), learner="eager", device="cpu", **arguments) as model:
        lines = logged_by(model)
        model.learn(120, log_interval=4)
    assert len(lines) >= 2
    # Delays are random: of so few steps, those of one sampler may take longer.
    assert {line["async/bottleneck"] == "learner" for line in lines[1:]} == {is_learner}


def test_a_line_tells_of_the_time_since_the_last_one() -> None:
    with SlowUpdates("MlpPolicy", samplers([0.0] * 2), n_steps=N_STEPS, n_epochs=1, learner="eager") as model:
        lines = logged_by(model)
        model.learn(5 * 2 * N_STEPS, log_interval=5)
    # The last rollout alone would not know of the updates before it.
    assert [line["async/bottleneck"] for line in lines] == ["learner"]


@pytest.mark.parametrize(
    ("seconds", "wait_seconds", "busy_seconds", "word"),
    [
        (1.0, 0.6, [0.6, 0.6], "samplers"),
        (1.0, 0.4, [0.4, 0.4], "learner"),
        # Pipelined: samplers work all the time, and the learner waits for a little of that.
        (1.0, 0.1, [1.0, 1.0], "samplers"),
        (1.0, 0.0, [0.9, 0.9], "learner"),
        (1.0, 0.5, [0.1, 1.0], "slowest sampler 1"),
        (1.0, 0.5, [0.9, 1.0], "samplers"),
        (1.0, 0.5, [1.0], "samplers"),
        # In the learner's own process, one after the other.
        (1.0, 0.6, [0.2, 0.2, 0.2], "samplers"),
        (0.0, 0.0, [0.0, 0.0], "learner"),
    ],
)
def test_the_word(seconds: float, wait_seconds: float, busy_seconds: list[float], word: str) -> None:
    assert bottleneck(seconds, wait_seconds, np.array(busy_seconds), needs_all_samplers=True) == word


@given(
    seconds=st.floats(0.1, 10),
    waiting=st.floats(0, 1),
    busy=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    needs_all=st.booleans(),
)
def test_the_learner_that_waits_holds_up_nothing(
    seconds: float, waiting: float, busy: list[float], needs_all: bool
) -> None:
    wait_seconds, busy_seconds = seconds * waiting, seconds * np.array(busy)
    word = bottleneck(seconds, wait_seconds, busy_seconds, needs_all)
    if waiting > 0.51:
        assert word != "learner"
    if waiting < 0.49 and max(busy) < 0.49:
        assert word == "learner"
    if "slowest" in word:
        assert needs_all and int(word.split()[-1]) == int(np.argmax(busy_seconds))
