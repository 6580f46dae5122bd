"""The random streams that SB3 draws from when it chooses actions: torch's, NumPy's and the action space's."""

import io
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_walle.transport.errors import TransportError

# The longest integer in the state of a bit generator of NumPy has 128 bits.
_INT_NBYTES = 16


class RandomStreams:
    """
    Random streams of an actor's own.

    torch and NumPy have one global stream each. Where several samplers, or a sampler and the learner, live in one
    process, each would otherwise see the draws of the others. Within a ``with`` block, this object's streams stand in
    the place of the global ones.

    :param seed: what determines where the streams begin
    :param action_space: the action space; random actions are drawn from the copy :attr:`action_space`
    """

    def __init__(self, seed: tuple[int, ...], action_space: spaces.Space) -> None:
        torch_seed, numpy_seed, space_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
        #: a copy of the action space with a stream of its own
        self.action_space = deepcopy(action_space)
        self.action_space.seed(space_seed)
        self._torch = th.Generator().manual_seed(torch_seed).get_state()
        self._numpy = np.random.RandomState(numpy_seed).get_state(legacy=False)

    def __enter__(self) -> None:
        self._others = th.get_rng_state(), np.random.get_state(legacy=False)
        th.set_rng_state(self._torch)
        np.random.set_state(self._numpy)

    def __exit__(self, *exception: object) -> None:
        self._torch, self._numpy = th.get_rng_state(), np.random.get_state(legacy=False)
        th.set_rng_state(self._others[0])
        np.random.set_state(self._others[1])

    @property
    def state(self) -> np.ndarray:
        """Where the streams are, as :func:`global_state` gives it."""
        return _packed([self._torch.numpy(), self._numpy, _state_of(self.action_space)])

    @state.setter
    def state(self, packed: np.ndarray) -> None:
        like = [self._torch.numpy(), self._numpy, _state_of(self.action_space)]
        torch_state, self._numpy, self.action_space.np_random.bit_generator.state = _unpacked(packed, like)
        self._torch = th.from_numpy(torch_state)


def global_state(action_space: spaces.Space) -> np.ndarray:
    """
    :param action_space: an action space
    :return: where the global streams and that of the action space are, as bytes: as many as at any other time, and
        nothing in them but numbers
    """
    return _packed(_global_states(action_space))


def set_global_state(packed: np.ndarray, action_space: spaces.Space) -> None:
    """
    :param packed: where the streams then are, as :func:`global_state` gives it
    :param action_space: the action space whose stream is set, too
    :raises TransportError: if these are not the states of such streams
    """
    torch_state, numpy_state, space_state = _unpacked(packed, _global_states(action_space))
    th.set_rng_state(th.from_numpy(torch_state))
    np.random.set_state(numpy_state)
    action_space.np_random.bit_generator.state = space_state


def _global_states(action_space: spaces.Space) -> list[Any]:
    return [th.get_rng_state().numpy(), np.random.get_state(legacy=False), _state_of(action_space)]


def _state_of(action_space: spaces.Space) -> Any:
    return action_space.np_random.bit_generator.state


def _packed(states: Any) -> np.ndarray:
    """The numbers of some states, one after the other."""
    return np.frombuffer(b"".join(_to_bytes(number) for number in _numbers(states)), dtype=np.uint8)


def _unpacked(packed: np.ndarray, like: Any) -> Any:
    """The states whose numbers these are. Their structure is that of other states of the same streams."""
    nbytes = len(_packed(like))
    if packed.nbytes != nbytes:
        raise TransportError(f"Random streams like these have states of {nbytes} bytes, not of {packed.nbytes}")
    states = _read(io.BytesIO(packed.tobytes()), like)
    for state in states:
        _check_position(state)
    return states


def _check_position(state: Any) -> None:
    """NumPy does not look where in its table a Mersenne Twister is, and would read beyond the end."""
    table = state["state"] if isinstance(state, dict) else {}
    if "pos" in table and table["pos"] > len(table["key"]):
        raise TransportError(f"A random stream cannot be at number {table['pos']} of {len(table['key'])}")


def _numbers(states: Any) -> Iterator[Any]:
    """The integers, floats and arrays of states. Their strings only say which generators they belong to."""
    if isinstance(states, dict | list):
        for part in states.values() if isinstance(states, dict) else states:
            yield from _numbers(part)
    elif not isinstance(states, str):
        yield states


def _to_bytes(number: Any) -> bytes:
    return number.to_bytes(_INT_NBYTES, "little") if isinstance(number, int) else np.asarray(number).tobytes()


def _read(file: io.BytesIO, like: Any) -> Any:
    if isinstance(like, dict):
        return {name: _read(file, part) for name, part in like.items()}
    if isinstance(like, list):
        return [_read(file, part) for part in like]
    if isinstance(like, str):
        return like
    if isinstance(like, int):
        return int.from_bytes(file.read(_INT_NBYTES), "little")
    array = np.asarray(like)
    return np.frombuffer(file.read(array.nbytes), array.dtype).reshape(array.shape).copy()
