"""Mode "realtime" on a plant that does not wait, in a process of its own: what the plant says, and what is reported."""

import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.realtime.plant_env import PlantEnvFactory
from benchmarks.realtime.plant_process import PlantSettings, running_plant
from benchmarks.realtime.plant_record import statistics
from sb3_walle import AsyncSAC

HZ = 50
FALLBACK = np.array([0.123], np.float32)
ARGUMENTS: dict[str, Any] = {
    "mode": "realtime",
    "fallback_action": FALLBACK,
    "learner": "eager",
    "device": "cpu",
    "learning_starts": 1000,
}


class SlowCallback(BaseCallback):
    """Takes three periods."""

    def _on_step(self) -> bool:
        time.sleep(3 / HZ)
        return True


class LateEnv(gym.Wrapper):
    """Every tenth action is one and a half periods late."""

    n_steps = 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        if self.n_steps % 10 == 0:
            time.sleep(1.5 / HZ)
        return self.env.step(action)


@dataclass(frozen=True)
class LateFactory:
    factory: PlantEnvFactory

    def __call__(self) -> LateEnv:
        return LateEnv(self.factory())


@pytest.mark.parametrize("hz", [None, HZ])
def test_a_plant_does_not_notice_that_the_learner_is_slow(hz: float | None) -> None:
    n_steps = 30
    with running_plant(PlantSettings("Pendulum-v1", HZ, 0.0 if hz is None else 0.5)) as plant:
        with AsyncSAC("MlpPolicy", PlantEnvFactory(plant.address, hz), control_hz=hz, **ARGUMENTS) as model:
            model.learn(n_steps, callback=SlowCallback())
        record = plant.record()
    # Three periods for each of the steps that were learned from: other algorithms would miss two of three ticks.
    assert len(record.ticks) > 2.5 * n_steps
    # Others may be using the machine.
    assert statistics(record).missed < 0.4
    np.testing.assert_allclose(record.actions[-1].value, FALLBACK)
    assert record.departures[-1].said_so


def test_a_step_says_how_many_ticks_it_took() -> None:
    with running_plant(PlantSettings("Pendulum-v1", HZ)) as plant:
        with AsyncSAC("MlpPolicy", LateFactory(PlantEnvFactory(plant.address)), **ARGUMENTS) as model:
            model.learn(60)
            reported = model.realtime_statistics
        found = statistics(plant.record())
    assert reported is not None
    assert reported.n_missed >= 5 and reported.longest_gap >= 2
    # But for the steps at the end, which nothing was learned from.
    assert reported.n_missed == pytest.approx(found.missed * found.n_ticks, abs=3)
    assert reported.longest_gap == pytest.approx(found.longest_gap, abs=1)
