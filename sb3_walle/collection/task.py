"""What a collector is asked to collect."""

from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces

from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.envs.normalization import Normalization
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.infos import InfoSelection
from sb3_walle.samplers.stack import LayerSpec


@dataclass(frozen=True)
class EpisodeRules:
    """
    What whole episodes are like before any was collected.

    :param expected_steps: how many steps an episode has
    :param max_steps: after how many samplers truncate it, ``None`` if its environment does that itself
    """

    expected_steps: int
    max_steps: int | None = None


@dataclass(frozen=True)
class CollectionTask:
    """
    What samplers collect.

    :param observation_space: what the policy observes, with the data types that it comes in
    :param envs_per_sampler: environments of each sampler, B
    :param n_steps: steps of each environment in a rollout
    :param squash_output: whether actions come in [-1, 1], for samplers to rescale
    :param layers: what samplers put around their environments, from the inside to the outside
    :param normalization: the ``VecNormalize`` among these, if there is one
    :param infos: which infos are passed on
    :param check_finite: whether samplers refuse numbers that are not finite
    :param streams: the rules of streams if columns hold whole ones, also from one rollout to the next; ``None`` if
        they may end anywhere, because the next observation's value can stand in for the steps that are missing
    :param episodes: the rules of whole episodes if rollouts consist of these; ``n_steps`` is then what the queues are
        planned for
    :param realtime: how samplers act on plants that do not wait, ``None`` if environments wait
    """

    observation_space: spaces.Space
    envs_per_sampler: int
    n_steps: int
    squash_output: bool
    layers: tuple[LayerSpec, ...] = ()
    normalization: Normalization | None = None
    infos: InfoSelection = field(default_factory=InfoSelection)
    check_finite: bool = False
    streams: StreamRules | None = None
    episodes: EpisodeRules | None = None
    realtime: RealtimeSettings | None = None

    def published_statistics(self) -> dict[str, np.ndarray]:
        """:return: copies of what samplers normalise with, by name; nothing if they do not normalise"""
        return {} if self.normalization is None else self.normalization.published()
