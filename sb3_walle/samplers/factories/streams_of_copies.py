"""Random generators in the copies of one environment."""

import hashlib
import pickle
import random
from typing import TypeAlias

import numpy as np

Stream: TypeAlias = np.random.Generator | np.random.RandomState | random.Random

_STREAMS = (np.random.Generator, np.random.RandomState, random.Random)


def is_stream(value: object) -> bool:
    """:return: whether it is a random generator of NumPy or of Python"""
    return type(value) in _STREAMS


def tell_apart(stream: Stream, key: tuple[int, ...]) -> None:
    """
    Reseed a copied generator, with a stream that depends on nothing but its present state and the key of the copy.
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
