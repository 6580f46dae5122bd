"""What a plant is given when no fresh action comes any more."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

#: the last action once more
HOLD = "hold"
#: an action, ``"hold"``, or a function from an observation of the environment to an action
FallbackAction: TypeAlias = Any | Callable[[Any], Any]

ALLOWED = f"an action, {HOLD!r} (the last action once more), or a function from an observation to an action"


def check_fallback(fallback: FallbackAction) -> None:
    """
    :raises ValueError: if it is none
    """
    if fallback is None or (isinstance(fallback, str) and fallback != HOLD):
        raise ValueError(
            f"fallback_action must be {ALLOWED}, got {fallback!r}. The plant gets it when the learner ends, dies or "
            "falls behind. There is no default: zeros, say, are a full-speed move for an arm under position control."
        )


def check_fallback_in(action_space: spaces.Space, fallback: FallbackAction) -> None:
    """
    :raises ValueError: if it is an action, but none that the environment takes
    """
    if isinstance(fallback, str) or callable(fallback):
        return
    if not action_space.contains(as_action(fallback, action_space)):
        raise ValueError(f"fallback_action={fallback!r} is no action of {action_space}. It must be {ALLOWED}.")


def as_action(action: Any, action_space: spaces.Space) -> Any:
    """:return: the action in the data type of its space"""
    if isinstance(action_space, spaces.Discrete):
        return action
    try:
        return np.asarray(action, dtype=action_space.dtype)
    except (TypeError, ValueError):
        return action


def choose_fallback(fallback: FallbackAction, last_action: Any, observation: Any, action_space: spaces.Space) -> Any:
    """
    :param last_action: ``None`` if there was none since the last reset
    :param observation: what the environment has shown last
    :return: the action to give; ``None`` if the last one is to be held and there is none
    :raises ValueError: if a function has returned something that is no action
    """
    if isinstance(fallback, str):
        return last_action
    if not callable(fallback):
        return as_action(fallback, action_space)
    returned = fallback(observation)
    action = as_action(returned, action_space)
    if isinstance(action_space, spaces.Box) and np.shape(action) == action_space.shape and np.isfinite(action).all():
        # A measured position may lie a little outside.
        action = np.clip(action, action_space.low, action_space.high)
    if not action_space.contains(action):
        raise ValueError(
            f"The function that was given as fallback_action has returned {returned!r} for the observation "
            f"{observation!r}, which is no action of {action_space}."
        )
    return action
