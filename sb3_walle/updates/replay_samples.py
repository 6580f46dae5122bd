"""Samples of a replay buffer as the tensors that a traced step takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from sb3_walle.sb3_private import normalized_observations
from sb3_walle.updates.unsupported import Unsupported

_KNOWN = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, PrioritizedReplayBuffer)


def is_known(buffer: ReplayBuffer) -> bool:
    """Whether a replay buffer does what SB3's or this package's do, and nothing else."""
    return type(buffer) in _KNOWN


def check_buffer(buffer: ReplayBuffer) -> None:
    """:raises Unsupported: if the buffer is of a class of the user's own, whose samples may be anything"""
    if not is_known(buffer):
        raise Unsupported(f"the replay buffer is a {type(buffer).__name__}, not one of SB3's own")


def example_samples(buffer: ReplayBuffer, batch_size: int, normalizer: VecNormalize | None) -> list[th.Tensor]:
    """Zeros as :func:`tensors_of` gives them, also of an empty buffer."""
    observations = _example_observations(buffer, batch_size, normalizer)
    device = buffer.device
    column = th.zeros(batch_size, 1, device=device)
    actions = th.zeros(batch_size, buffer.action_dim, dtype=_torch_dtype(buffer.actions.dtype), device=device)
    same_for_all = th.zeros(1, device=device)
    discounts = column if _has_discounts(buffer) else same_for_all
    weights = column if isinstance(buffer, PrioritizedReplayBuffer) else same_for_all
    examples = [*observations, actions, *observations, column, column, discounts, weights]
    # Tracing takes what is the same tensor for the same input.
    return [tensor.clone() for tensor in examples]


def _has_discounts(buffer: ReplayBuffer) -> bool:
    has_some = isinstance(buffer, PrioritizedReplayBuffer) and buffer.n_steps > 1
    return has_some or isinstance(buffer, NStepReplayBuffer)


def _example_observations(buffer: ReplayBuffer, batch_size: int, normalizer: VecNormalize | None) -> list[th.Tensor]:
    stored = buffer.observations
    arrays = stored if isinstance(stored, dict) else {"": stored}
    zeros: Any = {key: np.zeros((1, *array.shape[2:]), array.dtype) for key, array in arrays.items()}
    # In the types that VecNormalize gives them.
    found = normalized_observations(buffer, zeros if isinstance(stored, dict) else zeros[""], normalizer)
    parts = found.values() if isinstance(found, dict) else [found]
    return [
        th.zeros(batch_size, *part.shape[1:], dtype=_torch_dtype(part.dtype), device=buffer.device) for part in parts
    ]


def tensors_of(samples: Any, gamma: th.Tensor, weight: th.Tensor) -> list[th.Tensor]:
    """
    Observations, actions, next observations, dones, rewards, discounts and weights.

    :param samples: a minibatch of a replay buffer
    :param gamma: discount factor where the samples have none, ``[1]``
    :param weight: weight where they have none, ``[1]``
    """
    return [
        *_parts(samples.observations),
        samples.actions,
        *_parts(samples.next_observations),
        samples.dones,
        samples.rewards,
        gamma if samples.discounts is None else samples.discounts,
        getattr(samples, "weights", weight),
    ]


def check_kinds(found: Sequence[th.Tensor], expected: Sequence[th.Tensor]) -> None:
    """:raises Unsupported: if a program that was traced with the expected tensors does not take these"""
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype or not one.is_contiguous():
            raise Unsupported("the replay buffer gives other tensors than when its update was compiled")


def _parts(observations: Any) -> list[th.Tensor]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def _torch_dtype(dtype: Any) -> th.dtype:
    return th.from_numpy(np.zeros(0, dtype)).dtype
