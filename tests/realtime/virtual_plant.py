"""A clock that passes only when it is told to, and an environment that takes time on it."""

from collections import deque
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_walle.backends.inline import InlineSamplers
from sb3_walle.backends.protocol import UNASKED, Delivery, Event
from sb3_walle.backends.supervision import Supervision


class VirtualClock:
    """A :class:`~sb3_walle.realtime.pacing.Clock`."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float) -> None:
        assert moment >= self.time - 1e-9
        self.time = moment

    def pass_by(self, seconds: float) -> None:
        self.time += seconds


class VirtualPlantEnv(gym.Env):
    """
    Notes when it gets which action.

    :param step_seconds: how long the next steps take, the last one again and again
    :param reset_seconds: how long a reset takes
    :param episode_length: steps of an episode
    """

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        clock: VirtualClock,
        step_seconds: tuple[float, ...] = (0.0,),
        reset_seconds: float = 0.0,
        episode_length: int = 1_000_000,
    ) -> None:
        self.clock, self._reset_seconds, self._episode_length = clock, reset_seconds, episode_length
        self._step_seconds = deque(step_seconds)
        self.applied: list[tuple[float, float]] = []
        self.n_resets, self.n_steps, self.is_closed = 0, 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.clock.pass_by(self._reset_seconds)
        self.n_resets, self.n_steps = self.n_resets + 1, 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert not self.is_closed
        self.applied.append((self.clock.time, float(action[0])))
        self.n_steps += 1
        self._take_time()
        return self._observe(), 0.0, False, self.n_steps >= self._episode_length, {}

    def close(self) -> None:
        self.is_closed = True

    def _take_time(self) -> None:
        seconds = self._step_seconds[0] if len(self._step_seconds) == 1 else self._step_seconds.popleft()
        self.clock.pass_by(seconds)

    def _observe(self) -> np.ndarray:
        return np.array([self.n_steps], dtype=np.float32)


class WaitingPlantEnv(VirtualPlantEnv):
    """Waits between sending the action and reading the observation."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.read_at: list[float] = []

    def wait_for_tick(self) -> None:
        raise AssertionError("this is replaced")

    def step(self, action: np.ndarray) -> Any:
        result = super().step(action)
        self.wait_for_tick()
        self.read_at.append(self.clock.time)
        return result


class SimulatedBackend:
    """Samplers that act while time passes on the learner's clock, as processes would do."""

    shares_objects: ClassVar[bool] = True
    drives_plants: ClassVar[bool] = True

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.samplers: SimulatedSamplers | None = None

    def n_cpus(self) -> float:
        return 1

    def launch(self, n_samplers: int, preload: Any, supervision: Supervision) -> "SimulatedSamplers":
        self.samplers = SimulatedSamplers(n_samplers, self._clock)
        return self.samplers


class SimulatedSamplers(InlineSamplers):
    """Of one plant only: there is one clock."""

    def __init__(self, n_samplers: int, clock: VirtualClock) -> None:
        super().__init__(n_samplers)
        self._clock = clock
        self._arrived: deque[Delivery] = deque()
        # A tick, or a reset, is longer than what the learner does meanwhile.
        self._learner_time = clock.time

    def pass_time(self, seconds: float) -> None:
        """The learner works for so long."""
        self._learner_time += seconds
        while self._clock.time < self._learner_time and (event := self._step_plant()) is not None:
            assert isinstance(event, Delivery) and event.number == UNASKED
            self._arrived.append(event)

    def receive(self, timeout: float | None = None) -> Event | None:
        if self._arrived:
            return self._arrived.popleft()
        event = super().receive(timeout)
        if timeout is None:
            self._learner_time = max(self._learner_time, self._clock.time)
        return event
