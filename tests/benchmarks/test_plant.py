"""The plant that never waits: its clock, what it counts, and what it does without a client."""

import math
import os
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.realtime.physics import Physics
from benchmarks.realtime.plant import Observed, Plant
from benchmarks.realtime.plant_env import N_TICKS, PacedPlantEnv, PlantEnv
from benchmarks.realtime.plant_process import PlantSettings, running_plant
from benchmarks.realtime.plant_record import longest_run, periods, statistics
from sb3_walle.cli.environments import quiet_factory

PERIOD = 0.02
ACTION = np.array([0.5], np.float32)
_CHEETAH = Physics("HalfCheetah-v4")


class Agent:
    """Controls a plant on a virtual clock: an action takes so long after its observation."""

    def __init__(self, charge: float) -> None:
        self.plant, self.charge, self.now = Plant(Physics("Pendulum-v1"), PERIOD), charge, 0.0
        self.steps: list[Observed] = []
        self.plant.reset(self.now, seed=0)

    def run(self, n_actions: int) -> None:
        for _ in range(n_actions):
            self.tick_until(self.now + self.charge)
            self.now += self.charge
            assert self.plant.act(self.now, ACTION) is None
            while (observed := self.tick()) is None:
                continue
            self.steps.append(observed)

    def tick(self) -> Observed | None:
        assert self.plant.due is not None
        self.now = self.plant.due
        observed = self.plant.tick(self.now)
        if observed is not None:
            self.plant.told(self.now)
        return observed

    def tick_until(self, end: float) -> None:
        while self.plant.due is not None and self.plant.due <= end:
            now = self.now
            assert self.tick() is None
            self.now = now


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 3.9).filter(lambda charge: abs(charge - round(charge)) > 1e-3), st.integers(3, 12))
def test_a_plant_counts_the_ticks_that_an_agent_is_late(charge: float, n_actions: int) -> None:
    agent = Agent(charge * PERIOD)
    agent.run(n_actions)
    late = math.floor(charge)
    found = statistics(agent.plant.record)
    # The plant rests until the first action.
    assert found.n_ticks == 1 + (n_actions - 1) * (1 + late)
    assert found.missed == pytest.approx((n_actions - 1) * late / found.n_ticks)
    assert found.longest_gap == 1 + late
    np.testing.assert_allclose(found.ages, charge * PERIOD)
    # The first action begins the first tick; those after it come after its observation.
    np.testing.assert_allclose(periods(agent.plant.record)[1:], (1 + late) * PERIOD)
    assert [step.n_ticks for step in agent.steps] == [1, *[1 + late] * (n_actions - 1)]


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "HalfCheetah-v4", "CartPole-v1"])
def test_a_plant_in_time_is_the_environment(env_id: str) -> None:
    """In as many substeps, but for Pendulum, whose step is no smaller one of its own."""
    env = quiet_factory(env_id)()
    env.action_space.seed(1)
    observation, _ = env.reset(seed=3)
    plant = Plant(Physics(env_id), PERIOD)
    observed: Any = plant.reset(0.0, seed=3)
    np.testing.assert_array_equal(observed.observation, np.asarray(observation, float))
    for step in range(5):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        plant.act(step * PERIOD + 1e-4, action)
        observed = plant.tick((step + 1) * PERIOD)
        if env_id != "Pendulum-v1":
            np.testing.assert_allclose(observed.observation, np.asarray(observation, float), rtol=1e-6)
            assert observed.reward == pytest.approx(float(reward), rel=1e-3)
    env.close()


@given(st.floats(0.0, 1e4), st.floats(0.1, 0.9), st.floats(0.001, 0.1))
def test_nothing_acts_before_the_first_action(now: float, phase: float, period: float) -> None:
    """Wherever in a tick it arrives, and whatever is rounded."""
    plant = Plant(_CHEETAH, period, phase)
    plant.reset(now)
    plant.act(now, np.ones(6, np.float32))
    assert plant.due is not None
    plant.tick(plant.due)
    assert len(plant.record.ticks) == 1


def test_a_late_action_acts_late() -> None:
    """Half of a tick with the action before, and half with the new one."""
    in_time, late = Plant(Physics("HalfCheetah-v4"), PERIOD), Plant(Physics("HalfCheetah-v4"), PERIOD)
    actions = [np.full(6, value, np.float32) for value in (1.0, -1.0)]
    shown = []
    for plant, delay in ((in_time, 0.0), (late, 0.6 * PERIOD)):
        plant.reset(0.0, seed=0)
        plant.act(0.0, actions[0])
        plant.tick(PERIOD)
        plant.act(PERIOD + delay, actions[1])
        observed = plant.tick(2 * PERIOD)
        assert observed is not None
        shown.append(observed.observation)
    # Three substeps of five with the first action, as of a physics that is told so.
    told = Physics("HalfCheetah-v4")
    told.reset(0)
    told.advance(actions[0], told.n_substeps + 3)
    told.advance(actions[1], 2)
    np.testing.assert_array_equal(shown[1], told.observation)
    assert not np.allclose(shown[0], shown[1])


def test_an_agent_that_misses_the_end_of_an_episode_hears_of_it() -> None:
    agent = Agent(1.5 * PERIOD)
    agent.run(100)
    # Gymnasium truncates Pendulum after 200 steps.
    assert agent.tick() is None
    last = agent.plant.act(agent.now + PERIOD, ACTION)
    assert last is not None and last.truncated and not last.terminated
    (episode,) = agent.plant.record.episodes
    assert episode.n_ticks == 200 == sum(step.n_ticks for step in [*agent.steps, last])
    assert episode.episode_return == pytest.approx(sum(step.reward for step in [*agent.steps, last]))


@given(st.lists(st.booleans(), max_size=30))
def test_longest_run(marks: list[bool]) -> None:
    runs = "".join("x" if mark else " " for mark in marks).split()
    assert longest_run(np.array(marks, bool)) == max(map(len, runs), default=0)


def test_a_plant_stops_when_its_client_dies() -> None:
    with running_plant(PlantSettings("Pendulum-v1", hz=200)) as plant:
        pid = os.fork()
        if pid == 0:
            env = PlantEnv(plant.address)
            env.reset(seed=0)
            for _ in range(20):
                env.step(ACTION)
            os._exit(0)
        os.waitpid(pid, 0)
        deadline = time.monotonic() + 10
        while not (record := plant.record()).safe_stops:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (departure,) = record.departures
        assert (departure.client, departure.said_so) == (pid, False)
        assert [action.client for action in record.actions] == [pid] * 20
        # Nothing has moved since, and the next client can have it.
        env = PlantEnv(plant.address)
        n_ticks = len(plant.record().ticks)
        assert n_ticks == len(record.ticks)
        env.reset()
        _, _, _, _, info = env.step(ACTION)
        env.close()
        assert info[N_TICKS] == 1
        assert len(plant.record().ticks) == n_ticks + 1
        assert plant.record().departures[-1].said_so


def test_an_environment_keeps_time_where_the_plant_does_not() -> None:
    with running_plant(PlantSettings("Pendulum-v1", hz=50, phase=0.5)) as plant:
        env = PacedPlantEnv(plant.address, hz=50)
        env.reset(seed=0)
        began = time.monotonic()
        for _ in range(10):
            env.step(ACTION)
        seconds = time.monotonic() - began
        env.close()
        found = plant.record()
    assert seconds >= 0.199
    # Others may be using the machine.
    assert statistics(found).missed < 0.5
