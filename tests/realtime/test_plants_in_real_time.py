"""A plant's ticks, times and fallback action, on a virtual clock."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from virtual_plant import VirtualClock, VirtualPlantEnv, WaitingPlantEnv

from sb3_walle.errors import NonFiniteError
from sb3_walle.realtime.fallback import check_fallback, check_fallback_in
from sb3_walle.realtime.plant import N_TICKS, Plant
from sb3_walle.realtime.settings import LEAST_RING_SECONDS, RING_NBYTES, RING_SECONDS, RealtimeSettings
from sb3_walle.realtime.statistics import RealtimeStatistics, TickTimes
from sb3_walle.samplers.envs import SamplerEnvs

HZ = 50.0
PERIOD = 1.0 / HZ
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def plant_of(env: VirtualPlantEnv, fallback: Any = "hold", control_hz: float | None = HZ) -> Plant:
    return Plant(env, env.step, env.reset, RealtimeSettings(fallback, control_hz, env.clock))


def act(plant: Plant, clock: VirtualClock, n_steps: int, inference: float = 0.001) -> list[TickTimes]:
    times = []
    for step in range(n_steps):
        clock.pass_by(inference)
        info = plant.step(np.array([step / 100], np.float32))[4]
        assert info.get(N_TICKS, 0) == plant.times.n_ticks
        times.append(plant.times)
    return times


def test_actions_are_applied_at_ticks() -> None:
    env = VirtualPlantEnv(VirtualClock(), step_seconds=(0.005,))
    plant = plant_of(env)
    plant.reset()
    times = act(plant, env.clock, 100)
    applied = [time for time, _ in env.applied]
    assert applied == pytest.approx([applied[0] + step * PERIOD for step in range(100)])
    assert [time.n_ticks for time in times] == [1] * 100
    assert [time.period for time in times] == pytest.approx([0.0] + [PERIOD] * 99)
    # The observation was read at the end of the step before.
    assert [time.action_age for time in times] == pytest.approx([0.001] + [PERIOD - 0.005] * 99)


def test_step_that_takes_several_ticks_says_so_and_the_next_one_does_not_hurry() -> None:
    env = VirtualPlantEnv(VirtualClock(), step_seconds=(0.001, 0.001, 0.05, 0.001))
    plant = plant_of(env)
    plant.reset()
    times = act(plant, env.clock, 6)
    assert [time.n_ticks for time in times] == [1, 1, 1, 3, 1, 1]
    applied = np.array([time for time, _ in env.applied])
    assert (applied - applied[0]) / PERIOD == pytest.approx([0, 1, 2, 5, 6, 7])


def test_environment_that_waits_between_sending_and_reading_gets_young_actions() -> None:
    env = WaitingPlantEnv(VirtualClock())
    plant = plant_of(env)
    plant.reset()
    times = act(plant, env.clock, 50)
    assert [time.action_age for time in times] == pytest.approx([0.001] * 50)
    assert env.read_at == pytest.approx([env.read_at[0] + step * PERIOD for step in range(50)])
    # What was sent after the first observation, at the time of the first tick, counts as that.
    assert env.applied[0][0] == pytest.approx(env.read_at[0] - PERIOD)


def test_ticks_begin_anew_after_a_reset() -> None:
    env = VirtualPlantEnv(VirtualClock(), reset_seconds=3.21)
    plant = plant_of(env)
    plant.reset()
    act(plant, env.clock, 5)
    plant.reset()
    times = act(plant, env.clock, 5)
    assert [time.n_ticks for time in times] == [1] * 5
    assert times[0].period == 0.0 and times[0].action_age == pytest.approx(0.001)


def test_environment_that_keeps_time_itself_tells_how_many_ticks_a_step_took() -> None:
    class TellingEnv(VirtualPlantEnv):
        def step(self, action: np.ndarray) -> Any:
            *result, info = super().step(action)
            return (*result, {**info, N_TICKS: 2})

    env = TellingEnv(VirtualClock(), step_seconds=(0.04,))
    plant = plant_of(env, control_hz=None)
    plant.reset()
    times = act(plant, env.clock, 3)
    assert [time.n_ticks for time in times] == [2, 2, 2]
    assert [time.period for time in times] == pytest.approx([0.0, 0.041, 0.041])


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        pytest.param("hold", 0.02, id="hold"),
        pytest.param([0.5], 0.5, id="an action"),
        pytest.param(lambda observation: -observation / 10, -0.3, id="a function"),
    ],
)
def test_fallback_action_is_given_once(fallback: Any, expected: float) -> None:
    env = VirtualPlantEnv(VirtualClock())
    plant = plant_of(env, fallback)
    plant.reset()
    act(plant, env.clock, 3)
    before = env.clock.time
    plant.give_fallback()
    plant.give_fallback()
    # At once, and not at the next tick.
    assert env.applied[3:] == [(before, pytest.approx(expected))]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_action_that_is_not_finite_is_not_given_and_the_one_before_is_held(value: float) -> None:
    env = VirtualPlantEnv(VirtualClock())
    plant = plant_of(env)
    plant.reset()
    act(plant, env.clock, 3)
    with pytest.raises(NonFiniteError, match=rf"has chosen the action \[{value}\] after the observation"):
        plant.step(np.array([value], np.float32))
    assert len(env.applied) == 3
    plant.give_fallback()
    assert env.applied[3:] == [(pytest.approx(env.clock.time), pytest.approx(0.02))]


def test_nothing_is_held_before_the_first_action_or_after_an_episode() -> None:
    env = VirtualPlantEnv(VirtualClock(), episode_length=2)
    plant = plant_of(env)
    plant.reset()
    plant.give_fallback()
    assert env.applied == []
    plant.reset()
    act(plant, env.clock, 2)
    plant.give_fallback()
    assert len(env.applied) == 2


def test_position_that_lies_outside_is_held_at_the_limit() -> None:
    env = VirtualPlantEnv(VirtualClock())
    plant = plant_of(env, lambda observation: observation)
    plant.reset()
    act(plant, env.clock, 3)
    plant.give_fallback()
    assert env.applied[-1][1] == 1.0


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda observation: np.zeros(3),
            ValueError,
            r"has returned array\(\[0., 0., 0.\]\) for the observation array",
        ),
        (lambda observation: [np.nan], ValueError, "which is no action of Box"),
        (lambda observation: [np.inf], ValueError, "which is no action of Box"),
        (lambda observation: None, ValueError, "which is no action of Box"),
        (lambda observation: observation["pose"], IndexError, "only integers"),
    ],
)
def test_function_that_gives_no_action_is_an_error_before_the_first_action(
    function: Any, error: type[Exception], message: str
) -> None:
    env = VirtualPlantEnv(VirtualClock())
    # The environment was reset before.
    plant = Plant(env, env.step, env.reset, RealtimeSettings(function, HZ, env.clock), np.zeros(1))
    with pytest.raises(error, match=message):
        plant.step(np.zeros(1))
    plant.give_fallback()
    assert env.applied == []


def test_wrapper_may_wait_and_waits_by_itself_again_in_the_end() -> None:
    class Waits(gym.Wrapper):
        n_waits = 0

        def wait_for_tick(self) -> None:
            self.n_waits += 1

        def step(self, action: Any) -> Any:
            result = super().step(action)
            self.wait_for_tick()
            return result

    env = VirtualPlantEnv(VirtualClock())
    waits = Waits(env)
    envs = SamplerEnvs([lambda: waits])
    (plant,) = envs.as_plants(RealtimeSettings("hold", HZ, env.clock))
    plant.reset()
    times = act(plant, env.clock, 3)
    assert [time.action_age for time in times] == pytest.approx([0.001] * 3) and waits.n_waits == 0
    envs.as_environments()
    waits.step(np.zeros(1))
    assert waits.n_waits == 1


@pytest.mark.parametrize("fallback", [None, "stop", [2.0, 0.0], [0.0], "0"])
def test_fallback_that_is_no_action_is_refused(fallback: Any) -> None:
    with pytest.raises(ValueError, match="fallback_action"):
        check_fallback(fallback)
        check_fallback_in(BOX, fallback)


@pytest.mark.parametrize("fallback", ["hold", [1, -1], np.zeros(2), (0.5, 0.5), lambda observation: observation])
def test_fallback_that_is_one_is_taken(fallback: Any) -> None:
    check_fallback(fallback)
    check_fallback_in(BOX, fallback)


@pytest.mark.parametrize(
    ("hz", "nbytes", "n_steps"),
    [
        (50.0, 500, 50 * RING_SECONDS),
        (500.0, 500, 500 * RING_SECONDS),
        (None, 500, 50 * RING_SECONDS),
        (50.0, 2**17, RING_NBYTES / 2**17),
        (50.0, 2**24, 50 * LEAST_RING_SECONDS),
    ],
)
def test_ring_holds_minutes_unless_observations_are_large(hz: float | None, nbytes: int, n_steps: float) -> None:
    assert RealtimeSettings("hold", hz).n_ring_steps(nbytes) == n_steps


def test_statistics_of_steps() -> None:
    statistics = RealtimeStatistics(HZ)
    assert statistics.figures() == {}
    for n_ticks in (1, 1, 3, 1):
        statistics.add(TickTimes(n_ticks * PERIOD, 0.001, n_ticks), policy_age=0.2, policy_delay=None)
    figures = statistics.figures()
    assert figures["realtime/missed"] == pytest.approx(2 / 6)
    assert figures["realtime/period_ms_p50"] == pytest.approx(20.0, rel=0.01)
    assert figures["realtime/period_ms_max"] == pytest.approx(60.0)
    assert figures["realtime/action_age_ms_p99"] == pytest.approx(1.0, rel=0.01)
    assert figures["realtime/policy_age_s"] == pytest.approx(0.2, rel=0.01)
    statistics.add(TickTimes(0.0, 0.002, 1), policy_age=0.1, policy_delay=0.015)
    # The first action of an episode follows none.
    assert "realtime/period_ms_p50" in statistics.figures() and statistics.period_ms.n_values == 4
    assert (statistics.n_steps, statistics.n_ticks, statistics.n_missed, statistics.longest_gap) == (5, 7, 2, 3)
    assert statistics.policy_delay_ms.quantile(0.99) == pytest.approx(15.0, rel=0.01)
    assert statistics.figures() == {}


def test_environment_may_tell_ticks_of_late_steps_only() -> None:
    statistics = RealtimeStatistics(None)
    statistics.add(TickTimes(PERIOD, 0.001, 0), 0.1, None)
    assert "realtime/missed" not in statistics.figures() and statistics.n_ticks == 0
    for n_ticks in (0, 3, 0):
        statistics.add(TickTimes(PERIOD, 0.001, n_ticks), 0.1, None)
    assert statistics.figures()["realtime/missed"] == pytest.approx(2 / 5)
    assert (statistics.n_missed, statistics.n_ticks) == (2, 6)
