"""What plant and client tell each other over a socket: a few numbers, and an array."""

import struct
from typing import NamedTuple

import numpy as np

from benchmarks.realtime.plant import Observed

#: longer than any message
MAX_BYTES = 1 << 16
RESET, STEP, ACT, OBSERVE, CLOSE = range(5)
_WITH_ACTION = (STEP, ACT)
_ORDER = struct.Struct("<Bq")
_OBSERVED = struct.Struct("<qd??")
_NO_SEED = -1


class Order(NamedTuple):
    """
    :param kind: ``RESET``; ``OBSERVE``; ``STEP``, which is answered with the observation of the next tick; ``ACT`` and
        ``CLOSE``, which are not answered
    :param seed: of a reset
    :param action: of ``STEP`` and ``ACT``
    """

    kind: int
    seed: int | None = None
    action: np.ndarray | None = None

    def pack(self) -> bytes:
        head = _ORDER.pack(self.kind, _NO_SEED if self.seed is None else self.seed)
        return head if self.action is None else head + np.asarray(self.action, np.float64).tobytes()

    @classmethod
    def unpack(cls, message: bytes) -> "Order":
        kind, seed = _ORDER.unpack_from(message)
        action = np.frombuffer(message, np.float64, offset=_ORDER.size) if kind in _WITH_ACTION else None
        return cls(kind, None if seed == _NO_SEED else seed, action)


def pack_observed(observed: Observed) -> bytes:
    head = _OBSERVED.pack(observed.n_ticks, observed.reward, observed.terminated, observed.truncated)
    return head + observed.observation.tobytes()


def unpack_observed(message: bytes) -> Observed:
    return Observed(np.frombuffer(message, np.float64, offset=_OBSERVED.size), *_OBSERVED.unpack_from(message))
