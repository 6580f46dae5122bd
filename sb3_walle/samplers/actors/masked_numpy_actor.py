"""Chooses among the actions that environments call valid, in NumPy."""

from dataclasses import dataclass

import numpy as np

from sb3_walle.samplers.actors.action_masks import ACTION_MASKS, EnvMasks, action_masks_field
from sb3_walle.samplers.actors.numpy_actor import NumPyActor, NumPyActorSpec
from sb3_walle.samplers.actors.numpy_heads import FILLER_LOGIT, CategoricalHead, CategoricalSpec, Head
from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


class MaskedHead(CategoricalHead):
    """
    sb3-contrib's ``MaskableCategoricalDistribution``, and those of ``MultiDiscrete`` and ``MultiBinary`` spaces, which
    are several of them: what is not valid gets the logit of a category that does not exist.

    :param sizes: number of categories of each distribution
    """

    def __init__(self, sizes: tuple[int, ...], n_envs: int, random: np.random.Generator) -> None:
        super().__init__(len(sizes), max(sizes), n_envs, random)
        exists = np.arange(max(sizes)) < np.array(sizes)[:, np.newaxis]
        self._exists, self._rows = exists[:, :, np.newaxis], np.flatnonzero(exists)
        self._valid = np.zeros((exists.size, n_envs), dtype=bool)

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        self._masks = list(chunk.arrays[ACTION_MASKS])

    def sample(self, step: int) -> None:
        outputs, valid = self.output_rows[step], self._valid
        valid[self._rows] = self._masks[step].T
        by_distribution = valid.reshape(self._shape)
        none_valid = ~by_distribution.any(axis=1, keepdims=True)
        if none_valid.any():
            # As in sb3-contrib, each is as likely then.
            np.copyto(outputs.reshape(self._shape), 0.0, where=none_valid)
            by_distribution |= none_valid & self._exists
        np.copyto(outputs, FILLER_LOGIT, where=~valid)
        super().sample(step)


@dataclass(frozen=True)
class MaskedSpec(CategoricalSpec):
    """How to build a :class:`MaskedHead`."""

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """:return: those of any head, and the ``action_masks`` that held at each step"""
        return (*super().fields(n_steps, n_envs), action_masks_field(n_steps, n_envs, sum(self.sizes)))

    def build(self, n_envs: int, random: np.random.Generator) -> Head:
        return MaskedHead(self.sizes, n_envs, random)


@dataclass(frozen=True)
class MaskedNumPyActorSpec(NumPyActorSpec):
    """How to build a :class:`MaskedNumPyActor`, whose head is a :class:`MaskedHead`."""

    def build(self, n_envs: int) -> "MaskedNumPyActor":
        return MaskedNumPyActor(self, n_envs)


class MaskedNumPyActor(NumPyActor):
    """Asks the environments for their masks before each step."""

    def connect(self, envs: InnermostEnvs) -> None:
        self._env_masks = EnvMasks(envs)

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        self._masks = list(chunk.arrays[ACTION_MASKS])

    def act(self, observations: Observations, step: int) -> np.ndarray:
        self._env_masks.read(self._masks[step])
        return super().act(observations, step)
