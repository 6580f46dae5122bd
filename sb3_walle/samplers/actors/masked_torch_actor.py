"""Runs a policy of sb3-contrib's MaskablePPO, which chooses among the actions that environments call valid."""

from dataclasses import dataclass

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_walle.samplers.actors.action_masks import ACTION_MASKS, EnvMasks, action_masks_field, n_mask_values
from sb3_walle.samplers.actors.protocol import actions_field
from sb3_walle.samplers.actors.torch_actor import TorchActor, TorchActorSpec
from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.transport.chunk import Chunk
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class MaskedTorchActorSpec(TorchActorSpec):
    """How to build a :class:`MaskedTorchActor`."""

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """:return: those of any policy, and the ``action_masks`` that held at each step"""
        _, *others = super().fields(n_steps, n_envs)
        # Those of a MultiBinary space are categories, too.
        actions = actions_field(self.action_space, n_steps, n_envs, "<i8")
        return (actions, *others, action_masks_field(n_steps, n_envs, n_mask_values(self.action_space)))

    def build(self, n_envs: int) -> "MaskedTorchActor":
        return MaskedTorchActor(self, n_envs)


class MaskedTorchActor(TorchActor):
    """A copy of the learner's policy, which gets the environments' masks with their observations."""

    def connect(self, envs: InnermostEnvs) -> None:
        self._env_masks = EnvMasks(envs)

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        self._masks = chunk.arrays[ACTION_MASKS]

    def _forward(self, observations: PyTorchObs, step: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        masks = self._masks[step]
        self._env_masks.read(masks)
        return self.policy(observations, action_masks=masks)
