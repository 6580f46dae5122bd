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

from sb3_walle.algorithm.wrapper_state import infos_of_step, show_step_to_wrappers
from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.off_policy.passive_wrapper import PassiveWrapper
from sb3_walle.samplers.env_actions import env_actions
from sb3_walle.samplers.infos import TERMINAL_OBSERVATION
from sb3_walle.samplers.normalizer import ORIGINAL_OBSERVATIONS, ORIGINAL_REWARDS
from sb3_walle.transport.chunk import OBSERVATIONS, Observations, named, row


@dataclass(frozen=True)
class RecordedStep:
    """
    One step of all environments: a row of a rollout. Arrays are ``[n_envs, ...]``; those that are called original are
    what there was before ``VecNormalize``.
    """

    rollout: Rollout
    index: int

    @property
    def observations(self) -> Observations:
        return row(self.rollout.observations, self.index)

    @property
    def next_observations(self) -> Observations:
        """What the step led to; at the end of an episode, the beginning of the next one."""
        return self.rollout.next_observations(self.index)

    @property
    def actions(self) -> np.ndarray:
        """The actions, scaled to [-1, 1] if they are continuous."""
        return self.rollout.actions[self.index]

    @property
    def rewards(self) -> np.ndarray:
        return self.rollout.rewards[self.index]

    @property
    def dones(self) -> np.ndarray:
        return self.rollout.dones[self.index]

    @property
    def is_normalized(self) -> bool:
        """Whether there is a ``VecNormalize``."""
        return ORIGINAL_REWARDS in self.rollout.fields

    @property
    def original_observations(self) -> Observations:
        return row(named(self.rollout.fields, self._original_name), self.index)

    @property
    def original_next_observations(self) -> Observations:
        return self.rollout.next_observations(self.index, self._original_name)

    @property
    def original_rewards(self) -> np.ndarray:
        return self.rollout.fields[ORIGINAL_REWARDS][self.index] if self.is_normalized else self.rewards

    @property
    def _original_name(self) -> str:
        return ORIGINAL_OBSERVATIONS if self.is_normalized else OBSERVATIONS

    @property
    def continues(self) -> np.ndarray:
        """Whether the step follows the one before in the same environment, as far as collecting tells."""
        return self.rollout.continues[self.index]

    @property
    def episode_starts(self) -> np.ndarray:
        return self.rollout.episode_starts[self.index]

    def with_original_terminal_observations(self, infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        :param infos: the infos of the step
        :return: the same, but last observations of episodes are the original ones
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
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._to_env_actions = env_actions(self.action_space, isinstance(self.action_space, spaces.Box), self.num_envs)
        self._steps: Iterator[RecordedStep] = iter(())
        self._wrapped: WrappedSamplers | None = None
        self._current: RecordedStep | None = None

    @contextmanager
    def handing_out(self, steps: Iterator[RecordedStep], wrapped: WrappedSamplers) -> Iterator[None]:
        """
        Around SB3's loop. Afterwards, nothing here refers to where the steps come from: callbacks keep what they were
        shown of a rollout, these steps included.

        :param steps: the steps, which may have to be waited for
        :param wrapped: the wrappers that are kept up to date with them
        """
        self._steps, self._wrapped = steps, wrapped
        try:
            yield
        finally:
            self._steps, self._wrapped = iter(()), None

    @property
    def is_handing_out(self) -> bool:
        """Whether SB3's loop is at work on recorded steps."""
        return self._wrapped is not None

    @property
    def current(self) -> RecordedStep:
        """The step that is being made."""
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
        """Do nothing: the step was made already."""

    def step_wait(self) -> VecEnvStepReturn:
        step = self.current
        infos = infos_of_step(step.rollout, step.index)
        if self._wrapped is not None:
            show_step_to_wrappers(self._wrapped, step.rollout, step.index, infos)
        return step.next_observations, step.rewards, step.dones, infos
