"""
A plant that never waits: a simulation on an absolute clock, with zero-order hold. It knows the time only from what its
methods are told, so that tests need no clock.
"""

import math
from typing import NamedTuple

import numpy as np

from benchmarks.realtime.physics import Physics
from benchmarks.realtime.plant_record import Episode, PlantRecord, ReceivedAction, Tick


class Observed(NamedTuple):
    """
    What the plant tells its client.

    :param n_ticks: ticks since it told something last
    :param reward: sum of the rewards since then
    :param truncated: whether the episode has ended by its length
    """

    observation: np.ndarray
    n_ticks: int
    reward: float
    terminated: bool
    truncated: bool


class Plant:
    """
    Holds each action until another one arrives. It rests after a reset until the first action arrives, and again from
    the end of the episode on; only then it stands still.

    :param physics: what moves
    :param period: seconds between two ticks
    :param phase: where in a period the first action of an episode arrives: 0, at its beginning, for clients that wait
        for ticks; 0.5, in its middle, for clients with a clock of their own, which does not tell when ticks are
    :param watchdog: without a client, the plant stops after so many ticks
    """

    def __init__(self, physics: Physics, period: float, phase: float = 0.0, watchdog: int = 10) -> None:
        self.physics, self.record = physics, PlantRecord(period)
        self._period, self._phase, self._watchdog = period, phase, watchdog
        self._held: np.ndarray = np.zeros(0)
        self._is_moving, self._can_start, self._is_fresh, self._is_awaited = False, False, False, False
        self._n_substeps = self._tick = self._n_told = self._n_held = 0
        self._began = self._told_at = self._rested_from = 0.0
        self._reward = self._return = 0.0
        self._truncated = False

    @property
    def due(self) -> float | None:
        """When the present period ends, ``None`` while the plant rests."""
        return self._began + (self._tick + 1) * self._period if self._is_moving else None

    def reset(self, now: float, seed: int | None = None) -> Observed:
        """Begin an episode. The plant rests until the first action."""
        self._rest(now)
        self.physics.reset(seed)
        self._can_start, self._truncated, self._is_awaited = True, False, False
        self._reward = self._return = 0.0
        self._tick = self._n_told = 0
        return self._observed()

    def act(self, now: float, action: np.ndarray, client: int = 0, awaits_tick: bool = True) -> Observed | None:
        """
        An action arrives.

        :param client: process that has sent it
        :param awaits_tick: whether the client wants the observation of the next tick
        :return: the answer, if that tick never comes: the episode has ended
        """
        # The plant rests until the first action of an episode, which has all the time.
        age = math.nan if self._can_start else now - self._told_at
        self.record.actions.append(
            ReceivedAction(now, len(self.record.ticks), age, client, tuple(np.ravel(action).tolist()))
        )
        if self._can_start:
            self._start(now)
            # The plant has held none before.
            self._held = action
        if self._is_moving:
            self._advance_to(now)
            self._held, self._is_fresh, self._n_held = action, True, 0
            self._is_awaited = awaits_tick
            return None
        return self._observed() if awaits_tick else None

    def observe(self, now: float) -> Observed:
        """The client looks at the plant."""
        if self._is_moving:
            self._advance_to(now)
        return self._observed()

    def told(self, now: float) -> None:
        """
        The client is told something. The age of its next action counts from here on: what the simulation takes, a real
        plant does not.
        """
        self._told_at = now

    def tick(self, now: float) -> Observed | None:
        """
        A period has ended.

        :return: the answer to the last action, if there was none yet
        """
        assert self.due is not None
        self.record.ticks.append(Tick(self.due, now - self.due, self._is_fresh))
        self._advance(self.physics.n_substeps)
        self._tick += 1
        self._n_held += 1
        self._n_substeps, self._is_fresh = 0, False
        self._truncated = self._tick == self.physics.max_episode_ticks
        if self.physics.terminated or self._truncated:
            self.record.episodes.append(Episode(now, len(self.record.ticks), self._return))
            self._rest(now)
        if not self._is_awaited:
            return None
        self._is_awaited = False
        return self._observed()

    def stop_if_alone(self, now: float) -> None:
        """Stop, if no client is there and the last action is old."""
        if self._is_moving and self._n_held >= self._watchdog:
            self.record.safe_stops.append(now)
            self._rest(now)

    def leave(self, now: float) -> None:
        """The client closes its environment."""
        self._rest(now)

    def _start(self, now: float) -> None:
        self._is_moving, self._can_start = True, False
        self._began = now - self._phase * self._period
        self.record.parked += now - self._rested_from if self.record.ticks else 0.0
        self._n_substeps, self._is_fresh, self._n_held = round(self._phase * self.physics.n_substeps), False, 0

    def _rest(self, now: float) -> None:
        if self._is_moving:
            self._rested_from = now
        self._is_moving = self._can_start = False

    def _advance_to(self, now: float) -> None:
        """Advance to the substep that is nearest to the present."""
        self._advance(round((now - self._began - self._tick * self._period) / self._period * self.physics.n_substeps))

    def _advance(self, n_substeps: int) -> None:
        """Advance to a substep of the present tick."""
        n_substeps = min(max(n_substeps, self._n_substeps), self.physics.n_substeps)
        reward = self.physics.advance(self._held, n_substeps - self._n_substeps)
        self._n_substeps = n_substeps
        self._reward += reward
        self._return += reward

    def _observed(self) -> Observed:
        reward, n_ticks = self._reward, self._tick - self._n_told
        self._reward, self._n_told = 0.0, self._tick
        ended = not self._is_moving and not self._can_start
        return Observed(
            np.array(self.physics.observation, np.float64),
            n_ticks,
            reward,
            ended and self.physics.terminated,
            ended and self._truncated and not self.physics.terminated,
        )
