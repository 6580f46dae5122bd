"""What a plant does between two ticks of its clock: an environment that advances in steps of a fraction of a tick."""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.cli.environments import quiet_factory

# Of environments with a time step that can be divided.
N_SUBSTEPS = 5


class Physics:
    """
    A simulation whose actions can change between two ticks. A tick is a step of the environment as Gymnasium knows it,
    in substeps: those between two frames in MuJoCo, a fifth of the step in Pendulum; other environments are not
    divided. The reward of a tick is the mean over its substeps.

    :param env_id: Gymnasium id of the environment
    """

    def __init__(self, env_id: str) -> None:
        env = quiet_factory(env_id)()
        #: ticks after which an episode is truncated, ``None`` for never
        self.max_episode_ticks = None if env.spec is None else env.spec.max_episode_steps
        # Without the wrappers that count steps.
        self._env: Any = env.unwrapped
        self.n_substeps = _divide_step(self._env)
        self.observation_space: gym.Space = self._env.observation_space
        self.action_space: gym.Space = self._env.action_space
        self.observation: np.ndarray = np.zeros(0)
        self.terminated = False

    def reset(self, seed: int | None = None) -> None:
        self.observation, _ = self._env.reset(seed=seed)
        self.terminated = False

    def advance(self, action: np.ndarray, n_substeps: int) -> float:
        """
        Hold an action. Nothing moves any more once the episode has terminated.

        :return: the reward
        """
        reward = 0.0
        for _ in range(n_substeps):
            if self.terminated:
                break
            self.observation, of_substep, self.terminated, *_ = self._env.step(action)
            reward += float(of_substep) / self.n_substeps
        return reward


def _divide_step(env: Any) -> int:
    """Make the environment's steps shorter. Returns how many of them are one of before."""
    if hasattr(env, "frame_skip"):
        n_substeps, env.frame_skip = env.frame_skip, 1
        return n_substeps
    # Pendulum. Other environments have no such attribute.
    if isinstance(getattr(env, "dt", None), float):
        env.dt /= N_SUBSTEPS
        return N_SUBSTEPS
    return 1
