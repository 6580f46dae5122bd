"""Predicts with the SB3 policy itself: any policy, deterministic or not."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.actors.action_masks import ACTION_MASKS, EnvMasks, n_mask_values
from sb3_walle.samplers.actors.random_streams import RandomStreams
from sb3_walle.samplers.actors.torch_policy import load_policy
from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.transport.chunk import Observations


@dataclass(frozen=True)
class TorchPredictorSpec:
    """
    How to build a :class:`TorchPredictor`.

    :param policy: the pickled policy, weights included
    :param deterministic: as for SB3's ``predict()``
    :param random_rate: probability of random actions where it is not deterministic, as in DQN's ``predict()``
    :param action_space: the policy's action space
    :param seed: what determines, with the number of the sampler, the random numbers
    :param takes_masks: whether the policy takes the masks of environments that have any
    """

    policy: bytes
    deterministic: bool
    random_rate: float
    action_space: spaces.Space
    seed: tuple[int, ...]
    takes_masks: bool = False

    def build(self, n_envs: int, sampler: int) -> "TorchPredictor":
        return TorchPredictor(self, n_envs, sampler)


class TorchPredictor:
    """
    A copy of the learner's policy. It makes the calls that SB3's ``evaluate_policy()`` makes, with the same batch
    shapes, so that a deterministic policy does what it does there to the last bit. What is random has a stream of its
    own: in SB3, evaluating changes what training draws next.

    :param spec: the policy
    :param n_envs: environments of the sampler, B
    :param sampler: number of the sampler
    """

    def __init__(self, spec: TorchPredictorSpec, n_envs: int, sampler: int) -> None:
        self._policy = load_policy(spec.policy)
        self._deterministic, self._random_rate, self._n_envs = spec.deterministic, spec.random_rate, n_envs
        self._streams = RandomStreams((*spec.seed, sampler), spec.action_space)
        self._state: Any = None
        self._takes_masks, self._action_space = spec.takes_masks, spec.action_space
        self._env_masks: EnvMasks | None = None

    def connect(self, envs: InnermostEnvs) -> None:
        if self._takes_masks and all(envs.has_attr(ACTION_MASKS, range(envs.n_envs))):
            self._env_masks = EnvMasks(envs)
            self._masks = np.empty((envs.n_envs, n_mask_values(self._action_space)), dtype=bool)

    def predict(self, observations: Observations, episode_starts: np.ndarray) -> np.ndarray:
        if self._deterministic:
            return self._predicted(observations, episode_starts)
        with self._streams:
            if np.random.rand() < self._random_rate:
                return np.array([self._streams.action_space.sample() for _ in range(self._n_envs)])
            return self._predicted(observations, episode_starts)

    def _predicted(self, observations: Observations, episode_starts: np.ndarray) -> np.ndarray:
        masks = {}
        if self._env_masks is not None:
            self._env_masks.read(self._masks)
            masks[ACTION_MASKS] = self._masks
        actions, self._state = self._policy.predict(
            observations, self._state, episode_starts, self._deterministic, **masks
        )
        return actions
