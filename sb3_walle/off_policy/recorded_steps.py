"""Steps that samplers made, in the place of the environments in SB3's off-policy loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_walle.algorithm.wrapper_state import WrapperState
from sb3_walle.collection.rollout import Rollout
from sb3_walle.off_policy.passive_wrapper import PassiveWrapper
from sb3_walle.samplers.infos import TERMINAL_OBSERVATION, TRUNCATED
from sb3_walle.samplers.normalizer import ORIGINAL_OBSERVATIONS, ORIGINAL_REWARDS
from sb3_walle.samplers.sampler import env_actions
from sb3_walle.transport.chunk import OBSERVATIONS, Observations, named, row


@dataclass(frozen=True)
class RecordedStep:
    """
    One step of all environments.

    :param index: its row in there
    """

    rollout: Rollout
    index: int

    @property
    def observations(self) -> Observations:
        """What the policy saw, ``[n_envs, ...]``, or a dictionary of such arrays."""
        return row(self.rollout.observations, self.index)

    @property
    def next_observations(self) -> Observations:
        """What the step led to; at the end of an episode, the beginning of the next one."""
        return self.rollout.next_observations(self.index)

    @property
    def actions(self) -> np.ndarray:
        """The actions, scaled to [-1, 1] if they are continuous, ``[n_envs, ...]``."""
        return self.rollout.actions[self.index]

    @property
    def rewards(self) -> np.ndarray:
        """The rewards, ``[n_envs]``."""
        return self.rollout.rewards[self.index]

    @property
    def dones(self) -> np.ndarray:
        """Whether the step ended an episode, ``[n_envs]``."""
        return self.rollout.dones[self.index]

    @property
    def is_normalized(self) -> bool:
        """Whether there is a ``VecNormalize``."""
        return ORIGINAL_REWARDS in self.rollout.fields

    @property
    def original_observations(self) -> Observations:
        """The observations before ``VecNormalize``."""
        if not self.is_normalized:
            return self.observations
        return row(named(self.rollout.fields, ORIGINAL_OBSERVATIONS), self.index)

    @property
    def original_next_observations(self) -> Observations:
        """What the step led to, before ``VecNormalize``."""
        name = ORIGINAL_OBSERVATIONS if self.is_normalized else OBSERVATIONS
        return self.rollout.next_observations(self.index, name)

    @property
    def original_rewards(self) -> np.ndarray:
        """The rewards before ``VecNormalize``, ``[n_envs]``."""
        return self.rollout.fields[ORIGINAL_REWARDS][self.index] if self.is_normalized else self.rewards

    @property
    def continues(self) -> np.ndarray:
        """Whether the step follows the one before in the same environment, as far as collecting tells, ``[n_envs]``."""
        return self.rollout.continues[self.index]

    @property
    def episode_starts(self) -> np.ndarray:
        """Whether the observations are the first of an episode, ``[n_envs]``."""
        return self.rollout.episode_starts[self.index]

    def infos(self) -> list[dict[str, Any]]:
        """:return: the infos as SB3's callbacks find them, one for each environment"""
        infos: list[dict[str, Any]] = [{TRUNCATED: False} for _ in range(self.rollout.n_envs)]
        for env, info in self.rollout.infos[self.index]:
            infos[env] = info
        return infos

    def with_original_terminal_observations(self, infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        :param infos: the infos of the step
        :return: the same, but last observations of episodes are as they were before ``VecNormalize``
        """
        if not self.is_normalized:
            return infos
        originals = copy(infos)
        for env in np.flatnonzero(self.dones):
            last = self.rollout.original_terminal_observations[self.index, int(env)]
            originals[env] = {**infos[env], TERMINAL_OBSERVATION: last}
        return originals


class RecordedSteps(PassiveWrapper):
    """
    Looks like environments to SB3's loop, and hands out recorded steps for any actions. The environments
    themselves answer everything else.

    :param venv: the environments
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._to_env_actions = env_actions(self.action_space, isinstance(self.action_space, spaces.Box), self.num_envs)
        self._steps: Iterator[RecordedStep] = iter(())
        self._wrapper_state: WrapperState | None = None
        self._current: RecordedStep | None = None
        #: whether SB3's loop is at work on recorded steps
        self.is_handing_out = False

    @contextmanager
    def handing_out(self, steps: Iterator[RecordedStep], wrapper_state: WrapperState) -> Iterator[None]:
        """
        Around SB3's loop. Afterwards, nothing here refers to where the steps come from: callbacks keep what they were
        shown of a rollout, these steps included.

        :param steps: the steps, which may have to be waited for
        :param wrapper_state: kept up to date with them
        """
        self._steps, self._wrapper_state, self.is_handing_out = steps, wrapper_state, True
        try:
            yield
        finally:
            self._steps, self._wrapper_state, self.is_handing_out = iter(()), None, False

    @property
    def current(self) -> RecordedStep:
        """
        The step that is being made.

        :raises RuntimeError: before the first step
        """
        if self._current is None:
            raise RuntimeError("There is no step before next_actions() is called")
        return self._current

    def next_actions(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Begin the next step.

        :return: the actions that the environments were given, and those that a replay buffer holds
        """
        step = self._current = next(self._steps)
        return self._to_env_actions(step.actions), step.actions

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: not used: the step was made already
        """

    def step_wait(self) -> VecEnvStepReturn:
        """:return: what the step led to"""
        step = self.current
        infos = step.infos()
        if self._wrapper_state is not None:
            self._wrapper_state.follow(step.rollout, step.index, infos)
        return step.next_observations, step.rewards, step.dones, infos
