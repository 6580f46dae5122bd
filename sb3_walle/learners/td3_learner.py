"""The updates of TD3 and DDPG, compiled where that pays."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.td3 import TD3

from sb3_walle.learners.replay_groups import Group
from sb3_walle.learners.replay_learner import ReplayLearner
from sb3_walle.learners.replay_step import ReplayStep
from sb3_walle.learners.replay_trace import TracedReplayStep, target_group, trained_group
from sb3_walle.learners.replay_update import ReplayUpdate
from sb3_walle.learners.td3_step import TD3CriticStep, TD3Step

_CRITICS, _ALL = "critics", "all"


class TD3Update(ReplayUpdate):
    """Does what SB3's ``TD3.train()`` does."""

    def _kind(self, index: int) -> str:
        # Counted before each step. What was counted during this update is added at its end.
        n_updates = self._algorithm._n_updates + index + 1
        return _ALL if n_updates % self._algorithm.policy_delay == 0 else _CRITICS

    def _trained_by(self, traced: TracedReplayStep) -> tuple[str, ...]:
        return ("actor", "critic") if isinstance(traced.step, TD3Step) else ("critic",)

    def _noise(self, actions: th.Tensor) -> list[th.Tensor]:
        return [actions.clone().normal_(0, self._algorithm.target_policy_noise)]

    def _coefficients(self, index: int) -> th.Tensor:
        return self._tensor([self._algorithm.target_noise_clip, self._algorithm.tau])

    def _record(self, columns: Mapping[str, np.ndarray]) -> None:
        algorithm, logger = self._algorithm, self._algorithm.logger
        algorithm._n_updates += len(columns["critic_loss"])
        logger.record("train/n_updates", algorithm._n_updates, exclude="tensorboard")
        if "actor_loss" in columns:
            logger.record("train/actor_loss", np.mean(columns["actor_loss"]))
        logger.record("train/critic_loss", np.mean(columns["critic_loss"]))


class TD3Learner(ReplayLearner):
    """Updates the policy of TD3 or DDPG."""

    sb3_train: ClassVar[Any] = TD3.train

    def _make_groups(self) -> list[Group]:
        trained = [trained_group(self._algorithm, name) for name in ("actor", "critic")]
        return [*trained, *(target_group(self._algorithm, name) for name in ("actor_target", "critic_target"))]

    def _kinds(self) -> dict[str, type[ReplayStep]]:
        if self._algorithm.policy_delay == 1:
            return {_ALL: TD3Step}
        return {_ALL: TD3Step, _CRITICS: TD3CriticStep}

    def _make_update(self, groups: list[Group]) -> ReplayUpdate:
        return TD3Update(self._algorithm, groups)

    def _check(self) -> None:
        """Whatever its networks are, they are only called."""
