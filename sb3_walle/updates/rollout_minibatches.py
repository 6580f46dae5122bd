"""The minibatches of a rollout buffer, as SB3 would draw them, without a copy for each of them."""

from collections.abc import Iterator

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_walle.updates.ppo_objective import SCALARS
from sb3_walle.updates.unsupported import Unsupported

# Samples are gathered for several minibatches at once, as many as stay in the cache of a core.
BYTES_AT_ONCE = 2**20
# Others are barely known to torch.
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


class RolloutMinibatches:
    """
    Draws minibatches as SB3's ``RolloutBuffer.get()`` does: the same ones in the same order from the same random state,
    with the same types. The buffer is left as that leaves it.

    :param buffer: a full buffer
    :param batch_size: samples of a minibatch, at most
    :param device: where the samples are needed; they are moved there once
    :raises Unsupported: if the buffer is of a class of the user's own, which may draw as it likes
    :raises ValueError: if it is not full
    """

    def __init__(self, buffer: RolloutBuffer, batch_size: int, device: th.device) -> None:
        check_buffer(buffer)
        if not buffer.full:
            raise ValueError("The rollout buffer is not full: collect a rollout before train(), as learn() does.")
        _flatten(buffer)
        self._n_samples = buffer.buffer_size * buffer.n_envs
        columns = [th.as_tensor(array).to(device) for array in _columns(buffer)]
        bytes_per_sample = sum(column[0].numel() * column.element_size() for column in columns)
        self._n_at_once = batch_size * max(1, BYTES_AT_ONCE // (bytes_per_sample * batch_size))
        self._device = device
        self._columns = [_Column(column, self._n_at_once, batch_size) for column in columns]

    def epoch(self) -> Iterator[tuple[th.Tensor, ...]]:
        """For each minibatch of one pass, its observations and all its numbers, until the next one is asked for."""
        order = th.from_numpy(np.random.permutation(self._n_samples)).to(self._device)
        for block in order.split(self._n_at_once):
            yield from zip(*[column.minibatches(block) for column in self._columns], strict=True)


class _Column:
    """
    One array of the buffer, and memory for some of its samples, which is cut into minibatches once: to make a tensor
    for each minibatch of each epoch takes longer than to copy its samples.

    :param samples: all samples, ``[n_samples, ...]``
    :param n_at_once: how many are gathered at once, at most
    :param batch_size: samples of a minibatch, at most
    """

    def __init__(self, samples: th.Tensor, n_at_once: int, batch_size: int) -> None:
        self._samples, self._batch_size = samples, batch_size
        self._gathered = samples.new_empty((min(n_at_once, len(samples)), *samples.shape[1:]))
        self._cut: dict[int, tuple[th.Tensor, ...]] = {}

    def minibatches(self, places: th.Tensor) -> tuple[th.Tensor, ...]:
        """:return: the samples at these places, one minibatch after the other, until the next call"""
        n_samples = len(places)
        if n_samples not in self._cut:
            self._cut[n_samples] = self._gathered[:n_samples].split(self._batch_size)
        th.index_select(self._samples, 0, places, out=self._gathered[:n_samples])
        return self._cut[n_samples]


def check_buffer(buffer: RolloutBuffer) -> None:
    """:raises Unsupported: if the buffer is of a class of the user's own"""
    if type(buffer) not in (RolloutBuffer, DictRolloutBuffer):
        raise Unsupported(f"the rollout buffer is of a class of its own, {type(buffer).__name__}")


def example_minibatch(buffer: RolloutBuffer, n_samples: int, device: th.device) -> tuple[th.Tensor, ...]:
    """
    A minibatch of ``n_samples`` zeros, in types and shapes as :meth:`RolloutMinibatches.epoch` has them.

    :raises Unsupported: if there are observations of a type that torch barely knows
    """
    n_leading_axes = 1 if buffer.generator_ready else 2
    observations = []
    for array in _observations(buffer):
        if array.dtype.name not in DTYPES:
            raise Unsupported(f"there are observations of type {array.dtype.name}")
        shape = (n_samples, *array.shape[n_leading_axes:])
        observations.append(th.zeros(shape, dtype=getattr(th, array.dtype.name), device=device))
    return (*observations, th.zeros((n_samples, buffer.action_dim + len(SCALARS)), device=device))


def _flatten(buffer: RolloutBuffer) -> None:
    """What ``get()`` does at first: ``[n_steps, n_envs, ...]`` becomes ``[n_envs * n_steps, ...]``."""
    if buffer.generator_ready:
        return
    if isinstance(buffer, DictRolloutBuffer):
        buffer.observations = {key: buffer.swap_and_flatten(array) for key, array in buffer.observations.items()}
    else:
        buffer.observations = buffer.swap_and_flatten(buffer.observations)
    for name in ("actions", "values", "log_probs", "advantages", "returns"):
        setattr(buffer, name, buffer.swap_and_flatten(getattr(buffer, name)))
    buffer.generator_ready = True


def _observations(buffer: RolloutBuffer) -> list[np.ndarray]:
    return list(buffer.observations.values()) if isinstance(buffer.observations, dict) else [buffer.observations]


def _columns(buffer: RolloutBuffer) -> list[np.ndarray]:
    # SB3 hands out actions as float32, for any space.
    numbers = [buffer.actions, *(getattr(buffer, name) for name in SCALARS)]
    return [*_observations(buffer), np.concatenate(numbers, axis=1, dtype=np.float32, casting="unsafe")]
