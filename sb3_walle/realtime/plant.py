"""A plant: an environment that is acted on in real time."""

import gc
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.errors import NonFiniteError
from sb3_walle.realtime.fallback import choose_fallback
from sb3_walle.realtime.pacing import Pacer
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.realtime.statistics import TickTimes

#: in the info of a step: how many ticks it took
N_TICKS = "realtime/n_ticks"
#: A method of an environment that the wait for the next tick takes the place of. ``step()`` calls it after it has sent
#: the action and before it reads the observation.
WAIT_FOR_TICK = "wait_for_tick"


class Plant:
    """
    Steps and resets an environment at a control rate, and measures when.

    :param env: the environment
    :param step: steps it
    :param reset: resets it
    :param observation: what it shows at present, if it was reset before
    """

    def __init__(
        self,
        env: gym.Env,
        step: Callable[..., Any],
        reset: Callable[..., Any],
        settings: RealtimeSettings,
        observation: Any = None,
    ) -> None:
        self._step, self._reset = step, reset
        self._action_space = env.action_space
        self._fallback = settings.fallback_action
        self._has_tried_fallback = not callable(self._fallback)
        self._now = settings.clock.now
        self._pacer = None if settings.control_hz is None else Pacer(1.0 / settings.control_hz, settings.clock)
        waiting = None if self._pacer is None else _waiting_part(env)
        # Otherwise the wait comes before the step.
        self._waits_in_step = waiting is not None
        self._waiting, self._own_wait = waiting, getattr(waiting, WAIT_FOR_TICK, None)
        if waiting is not None:
            setattr(waiting, WAIT_FOR_TICK, self._wait_in_step)
        self._last_action: Any = None
        self._is_in_episode = False
        self._observation = observation
        self._applied_at: float | None = None
        self._read_at = self._now()
        self._n_ticks = 0
        #: when the last step was made
        self.times = TickTimes(0.0, 0.0, 0)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """
        As the environment's, at the next tick.

        :raises NonFiniteError: if a number of the action is NaN or infinite: the plant does not get it
        """
        if not np.isfinite(action).all():
            raise NonFiniteError(
                f"The policy has chosen the action {action} after the observation {self._observation}, so that the "
                "plant was given the fallback action."
            )
        if not self._has_tried_fallback:
            # A function that fails does so now, rather than when it is needed.
            self._choose_fallback()
            self._has_tried_fallback = True
        self._n_ticks, self._is_in_episode = 0, True
        if self._pacer is not None:
            self._begin_tick(self._pacer)
        applied_at, read_before = self._now(), self._read_at
        self._last_action = action
        result = self._step(action)
        if not self._waits_in_step or self._n_ticks == 0:
            self._read_at = self._now()
        self._observation, info = result[0], result[4]
        self._is_in_episode = not (result[2] or result[3])
        if self._pacer is not None:
            info[N_TICKS] = self._n_ticks = max(1, self._n_ticks)
        else:
            self._n_ticks = int(info.get(N_TICKS, 0))
        period = 0.0 if self._applied_at is None else applied_at - self._applied_at
        self.times = TickTimes(period, applied_at - read_before, self._n_ticks)
        self._applied_at = applied_at
        return result

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's. Ticks begin anew with the first step after it."""
        self._last_action, self._is_in_episode = None, False
        result = self._reset(**kwargs)
        self._observation, self._is_in_episode = result[0], True
        if not gc.isenabled():
            # The loop collects no garbage. Now the plant rests.
            gc.collect()
        self._forget_ticks()
        return result

    def give_fallback(self) -> None:
        """Give the plant the fallback action, at once, if it is in an episode. Its next step comes after a reset."""
        if not self._is_in_episode:
            return
        self._is_in_episode = False
        action = self._choose_fallback()
        if action is not None:
            self._step(action)
        self._forget_ticks()

    def let_go(self) -> None:
        """Have the environment wait for ticks itself, as before."""
        if self._waiting is not None:
            setattr(self._waiting, WAIT_FOR_TICK, self._own_wait)

    def _choose_fallback(self) -> Any:
        return choose_fallback(self._fallback, self._last_action, self._observation, self._action_space)

    def _begin_tick(self, pacer: Pacer) -> None:
        if not pacer.is_running:
            pacer.start()
        elif not self._waits_in_step:
            self._n_ticks = pacer.wait()

    def _wait_in_step(self) -> None:
        assert self._pacer is not None
        self._n_ticks += self._pacer.wait()
        self._read_at = self._now()

    def _forget_ticks(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
        self._applied_at, self._read_at = None, self._now()


def _waiting_part(env: gym.Env) -> gym.Env | None:
    """:return: the environment or the wrapper around it that has a method to wait for ticks, ``None`` if none has"""
    while WAIT_FOR_TICK not in vars(env) and not hasattr(type(env), WAIT_FOR_TICK):
        if not isinstance(env, gym.Wrapper):
            return None
        env = env.env
    return env
