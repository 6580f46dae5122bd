"""An environment with invalid actions. Samplers import this file: it needs no torch."""

from typing import Any

import numpy as np
from gymnasium import spaces
from space_env import SpaceEnv

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
#: action spaces that sb3-contrib can mask, by what is tested with them
MASKABLE: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(5),
    "several discrete": spaces.MultiDiscrete([2, 4, 3]),
    "bits": spaces.MultiBinary(3),
}


class MaskedEnv(SpaceEnv):
    """
    Every step has other invalid actions, at least one valid one in each part of the action space, and taking an invalid
    one is an error.

    :param action_space: one of those in ``MASKABLE``
    :param observation_space: what to observe
    :param is_strict: whether it is an error
    """

    def __init__(
        self, action_space: spaces.Space, observation_space: spaces.Space = VECTOR, is_strict: bool = True
    ) -> None:
        super().__init__(observation_space, action_space)
        self.is_strict = is_strict

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        result = super().reset(seed=seed)
        self._draw_masks()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chosen = np.asarray(action).reshape(-1).astype(int)
        if self.is_strict and not all(mask[part] for mask, part in zip(self._masks, chosen, strict=True)):
            raise ValueError(f"{action} is invalid: {self._masks}")
        result = super().step(action)
        self._draw_masks()
        return result

    def action_masks(self) -> np.ndarray:
        return np.concatenate(self._masks)

    def _draw_masks(self) -> None:
        self._masks = [self.np_random.random(size) < 0.4 for size in sizes_of(self.action_space)]
        for mask in self._masks:
            mask[self.np_random.integers(len(mask))] = True


def sizes_of(space: spaces.Space) -> list[int]:
    """Number of actions in each part of an action space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else [2] * int(space.n)  # type: ignore[attr-defined]
