"""A vectorised environment that resets some of its environments while it steps others. It imports no torch."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space


class NextStep(gym.vector.VectorEnv):
    """
    Environments whose episodes begin with the step after their end, and which are never reset one by one.

    :param envs: the environments
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        self.envs, self.num_envs = envs, len(envs)
        self.single_observation_space, self.single_action_space = envs[0].observation_space, envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.n_calls = 0
        self._ended = np.zeros(self.num_envs, dtype=bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        assert options is None, "a mask would be taken for a reset of all rows"
        self._ended[:] = False
        return self._batch([env.reset()[0] for env in self.envs]), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.n_calls += 1
        # What a row says of a step in which it is only reset must not matter.
        steps: list[tuple] = [
            (env.reset()[0], 1e6, False, False, {"n": -1}) if ended else env.step(action)
            for env, action, ended in zip(self.envs, actions, self._ended, strict=True)
        ]
        observations, rewards, ends, cuts, infos = zip(*steps, strict=True)
        self._ended = np.logical_or(ends, cuts)
        all_infos: dict[str, Any] = {}
        for row, info in enumerate(infos):
            all_infos = self._add_info(all_infos, info, row)
        return self._batch(observations), np.array(rewards), np.array(ends), np.array(cuts), all_infos

    def _batch(self, observations: Sequence[Any]) -> Any:
        if isinstance(observations[0], dict):
            return {key: np.array([observation[key] for observation in observations]) for key in observations[0]}
        return np.array(observations)
