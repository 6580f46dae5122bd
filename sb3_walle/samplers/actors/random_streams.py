"""The random streams that SB3 draws from when it chooses actions: torch's, NumPy's and the action space's."""

import pickle
from copy import deepcopy

import numpy as np
import torch as th
from gymnasium import spaces

# Room for the states of all three.
NBYTES = 16_384
_LENGTH_NBYTES = 8


class RandomStreams:
    """
    Random streams of an actor's own.

    torch and NumPy have one global stream each. Where several samplers, or a sampler and the learner, live in one
    process, each would otherwise see the draws of the others. Within a ``with`` block, this object's streams stand in
    the place of the global ones.

    :param seed: what determines where the streams begin
    :param action_space: the action space; random actions are to be drawn from the copy :attr:`action_space`
    """

    def __init__(self, seed: tuple[int, ...], action_space: spaces.Space) -> None:
        torch_seed, numpy_seed, space_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
        #: a copy of the action space with a stream of its own
        self.action_space = deepcopy(action_space)
        self.action_space.seed(space_seed)
        self._torch = th.Generator().manual_seed(torch_seed).get_state()
        self._numpy = np.random.RandomState(numpy_seed).get_state()

    def __enter__(self) -> None:
        self._others = th.get_rng_state(), np.random.get_state()
        th.set_rng_state(self._torch)
        np.random.set_state(self._numpy)

    def __exit__(self, *exception: object) -> None:
        self._torch, self._numpy = th.get_rng_state(), np.random.get_state()
        th.set_rng_state(self._others[0])
        np.random.set_state(self._others[1])

    @property
    def state(self) -> np.ndarray:
        """Where the streams are, ``[NBYTES]``."""
        return _packed(self._torch, self._numpy, self.action_space)

    @state.setter
    def state(self, packed: np.ndarray) -> None:
        self._torch, self._numpy = _unpacked(packed, self.action_space)


def global_state(action_space: spaces.Space) -> np.ndarray:
    """
    :param action_space: an action space
    :return: where the global streams and that of the action space are, ``[NBYTES]``
    """
    return _packed(th.get_rng_state(), np.random.get_state(), action_space)


def set_global_state(packed: np.ndarray, action_space: spaces.Space) -> None:
    """
    :param packed: where the streams are to be, as :func:`global_state` gives it
    :param action_space: the action space whose stream is set, too
    """
    torch_state, numpy_state = _unpacked(packed, action_space)
    th.set_rng_state(torch_state)
    np.random.set_state(numpy_state)


def _packed(torch_state: th.Tensor, numpy_state: object, action_space: spaces.Space) -> np.ndarray:
    payload = pickle.dumps((torch_state.numpy(), numpy_state, action_space.np_random.bit_generator.state))
    assert len(payload) <= NBYTES - _LENGTH_NBYTES
    packed = np.zeros(NBYTES, dtype=np.uint8)
    packed[:_LENGTH_NBYTES].view(np.int64)[0] = len(payload)
    packed[_LENGTH_NBYTES : _LENGTH_NBYTES + len(payload)] = np.frombuffer(payload, dtype=np.uint8)
    return packed


def _unpacked(packed: np.ndarray, action_space: spaces.Space) -> tuple[th.Tensor, dict]:
    length = int(packed[:_LENGTH_NBYTES].copy().view(np.int64)[0])
    payload = packed[_LENGTH_NBYTES : _LENGTH_NBYTES + length].tobytes()
    torch_state, numpy_state, space_state = pickle.loads(payload)
    action_space.np_random.bit_generator.state = space_state
    return th.from_numpy(torch_state), numpy_state
