"""
Global state of torch and NumPy that is changed for a while and given back, though models may train in several threads.
"""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import torch as th

from sb3_walle.updates.torch_private import distributions_are_checked

# Held while a random state is kept or checks are off: of two threads that change the same thing, the second would take
# what the first has set for what it has to give back.
_changing = threading.RLock()

# How many blocks of all Python threads limit torch's threads, and how many threads it had before the first of them.
_counting = threading.Lock()
_n_limits, _n_threads = 0, 1
# The limit in this Python thread: torch's number is one a thread, too.
_here = threading.local()


@contextlib.contextmanager
def random_states_kept(device: th.device) -> Iterator[None]:
    """Random numbers that are drawn meanwhile, on the CPU or ``device``, do not change those that come next."""
    with _changing:
        numpy_state = np.random.get_state()
        try:
            with th.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            np.random.set_state(numpy_state)


@contextlib.contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Distributions check the values of their parameters, and there are none to check while tracing."""
    kind = th.distributions.Distribution
    with _changing:
        checks = distributions_are_checked()
        kind.set_default_validate_args(False)
        try:
            yield
        finally:
            kind.set_default_validate_args(checks)


@contextlib.contextmanager
def threads_at_most(limit: int) -> Iterator[None]:
    """torch uses no more threads. The last that leaves, of several Python threads, finds the number from before."""
    global _n_limits, _n_threads
    outer_limit = getattr(_here, "limit", None)
    with _counting:
        if _n_limits == 0:
            _n_threads = th.get_num_threads()
        _n_limits += 1
        before = _n_threads if outer_limit is None else outer_limit
    _here.limit = min(before, limit)
    if limit < before:
        th.set_num_threads(limit)
    try:
        yield
    finally:
        _here.limit = outer_limit
        with _counting:
            _n_limits -= 1
            if limit < before:
                th.set_num_threads(before)
