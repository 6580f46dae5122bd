"""A function that builds the vectorised environment of a sampler."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sb3_walle.samplers.factories import EnvFactory, call_arguments

# EnvPool, which takes its seed from its constructor, stores it in 32 bits with a sign.
N_SEEDS = 2**31


class VectorFactory:
    """
    A function that may be asked for all environments of a sampler at once.

    :param factories: as many times the function as there are environments
    """

    def __init__(self, factories: Sequence[EnvFactory]) -> None:
        self._function: Callable[..., Any] = factories[0]
        #: number of environments, B
        self.n_envs = len(factories)
        #: whether the function is called with the number, and whether it is called with a seed, too
        self.takes_number, self.takes_seed = call_arguments(factories[0])

    def __call__(self, seed: int | None = None) -> Any:
        """
        :param seed: for functions that take one; ``None`` for one that no other sampler has
        :return: what the function builds
        """
        arguments = (self.n_envs,) if self.takes_number else ()
        if not self.takes_seed:
            return self._function(*arguments)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        return self._function(*arguments, seed=seed % N_SEEDS)
