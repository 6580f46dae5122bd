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

_counting = threading.Lock()
_n_single_threaded, _n_threads = 0, 1


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
def one_thread() -> Iterator[None]:
    """torch uses one thread. The last that leaves, of several Python threads, finds the number from before."""
    global _n_single_threaded, _n_threads
    with _counting:
        if _n_single_threaded == 0:
            _n_threads = th.get_num_threads()
        _n_single_threaded += 1
        before = _n_threads
    if before > 1:
        th.set_num_threads(1)
    try:
        yield
    finally:
        with _counting:
            _n_single_threaded -= 1
            if before > 1:
                th.set_num_threads(before)
