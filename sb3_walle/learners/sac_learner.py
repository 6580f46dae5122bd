"""The updates of SAC, compiled where that pays."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.sac import SAC
from stable_baselines3.sac.policies import Actor

from sb3_walle.learners.replay_groups import Group
from sb3_walle.learners.replay_learner import ReplayLearner
from sb3_walle.learners.replay_step import ReplayStep
from sb3_walle.learners.replay_trace import TracedReplayStep, loose_group, target_group, trained_group
from sb3_walle.learners.replay_update import ReplayUpdate
from sb3_walle.learners.sac_step import SACStep
from sb3_walle.learners.unsupported import Unsupported

_STEP = "step"


class SACUpdate(ReplayUpdate):
    """Does what SB3's ``SAC.train()`` does."""

    def _kind(self, index: int) -> str:
        return _STEP

    def _trained_by(self, traced: TracedReplayStep) -> tuple[str, ...]:
        return ("actor", "critic", "ent_coef")

    def _noise(self, actions: th.Tensor) -> list[th.Tensor]:
        # As torch's distributions draw it: for the observations first, then for the next ones.
        return [th.empty_like(actions, dtype=self._gamma.dtype).normal_() for _ in range(SACStep.n_noise)]

    def _coefficients(self, index: int) -> th.Tensor:
        algorithm = self._algorithm
        follows = index % algorithm.target_update_interval == 0
        ent_coef = 0.0 if algorithm.ent_coef_optimizer is not None else algorithm.ent_coef_tensor.item()
        return self._tensor([algorithm.target_entropy, ent_coef, algorithm.tau if follows else 0.0])

    def _record(self, columns: Mapping[str, np.ndarray]) -> None:
        algorithm, logger = self._algorithm, self._algorithm.logger
        algorithm._n_updates += len(columns["ent_coef"])
        logger.record("train/n_updates", algorithm._n_updates, exclude="tensorboard")
        for name in ("ent_coef", "actor_loss", "critic_loss"):
            logger.record(f"train/{name}", np.mean(columns[name]))
        if algorithm.ent_coef_optimizer is not None:
            logger.record("train/ent_coef_loss", np.mean(columns["ent_coef_loss"]))


class SACLearner(ReplayLearner):
    """Updates the policy of SAC."""

    # Actor, two critics, and the entropy coefficient.
    eager_seconds: ClassVar[float] = 4e-3
    sb3_train: ClassVar[Any] = SAC.train

    def _make_groups(self) -> list[Group]:
        algorithm = self._algorithm
        groups = [trained_group(algorithm, "actor"), trained_group(algorithm, "critic")]
        if algorithm.ent_coef_optimizer is not None:
            groups.append(loose_group("ent_coef", algorithm.log_ent_coef, algorithm.ent_coef_optimizer))
        return [*groups, target_group(algorithm, "critic_target")]

    def _kinds(self) -> dict[str, type[ReplayStep]]:
        return {_STEP: SACStep}

    def _make_update(self, groups: list[Group]) -> ReplayUpdate:
        return SACUpdate(self._algorithm, groups)

    def _check(self) -> None:
        actor = self._algorithm.policy.actor
        if self._algorithm.use_sde:
            raise Unsupported("it uses gSDE")
        parts: tuple[Any, ...] = (actor, actor.action_dist)
        if tuple(map(type, parts)) != (Actor, SquashedDiagGaussianDistribution):
            raise Unsupported("the actor is a {} with a {}".format(*(type(part).__name__ for part in parts)))
