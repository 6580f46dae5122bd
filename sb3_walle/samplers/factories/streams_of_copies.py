"""Random generators in the copies of one environment."""

import hashlib
import pickle
import random
from typing import TypeAlias

import numpy as np

Stream: TypeAlias = np.random.Generator | np.random.RandomState | random.Random

_STREAMS = (np.random.Generator, np.random.RandomState, random.Random)


def is_stream(value: object) -> bool:
    """
    :param value: anything
    :return: whether it is a random generator of NumPy or of Python
    """
    return type(value) in _STREAMS


def tell_apart(stream: Stream, key: tuple[int, ...]) -> None:
    """
    Give a copied generator a stream of its own, which depends on nothing but its present state and the key.

    :param stream: the generator, reseeded in place
    :param key: which copy it belongs to
    """
    state = hashlib.sha256(pickle.dumps(stream)).digest()
    seed = np.random.SeedSequence(int.from_bytes(state, "little"), spawn_key=key)
    if isinstance(stream, np.random.Generator):
        bits = stream.bit_generator
        bits.state = type(bits)(seed).state
    elif isinstance(stream, np.random.RandomState):
        stream.seed(seed.generate_state(8))
    else:
        stream.seed(seed.generate_state(8).tobytes())
