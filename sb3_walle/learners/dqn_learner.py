"""The updates of DQN, compiled where that pays."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.dqn import DQN

from sb3_walle.learners.dqn_step import DQNStep
from sb3_walle.learners.replay_groups import Group
from sb3_walle.learners.replay_learner import ReplayLearner
from sb3_walle.learners.replay_step import ReplayStep
from sb3_walle.learners.replay_trace import TracedReplayStep, target_group, trained_group
from sb3_walle.learners.replay_update import ReplayUpdate

_STEP = "step"


class DQNUpdate(ReplayUpdate):
    """Does what SB3's ``DQN.train()`` does."""

    def _kind(self, index: int) -> str:
        return _STEP

    def _trained_by(self, traced: TracedReplayStep) -> tuple[str, ...]:
        return ("q_net",)

    def _noise(self, actions: th.Tensor) -> list[th.Tensor]:
        return []

    def _coefficients(self, index: int) -> th.Tensor:
        return self._tensor([self._algorithm.max_grad_norm])

    def _record(self, columns: Mapping[str, np.ndarray]) -> None:
        algorithm, logger = self._algorithm, self._algorithm.logger
        algorithm._n_updates += len(columns["loss"])
        logger.record("train/n_updates", algorithm._n_updates, exclude="tensorboard")
        logger.record("train/loss", np.mean(columns["loss"]))


class DQNLearner(ReplayLearner):
    """Updates the policy of DQN."""

    # One network, and small minibatches.
    eager_seconds: ClassVar[float] = 1e-3
    sb3_train: ClassVar[Any] = DQN.train

    def _make_groups(self) -> list[Group]:
        algorithm = self._algorithm
        trained = trained_group(algorithm, "q_net", algorithm.policy.optimizer)
        return [trained, target_group(algorithm, "q_net_target")]

    def _kinds(self) -> dict[str, type[ReplayStep]]:
        return {_STEP: DQNStep}

    def _make_update(self, groups: list[Group]) -> ReplayUpdate:
        return DQNUpdate(self._algorithm, groups)

    def _check(self) -> None:
        """Whatever its networks are, they are only called."""
