"""Functions that build a vectorised environment: what they are called with."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_walle.samplers.factories import EnvFactory

SEED = "seed"
# EnvPool, which takes its seed from its constructor, stores it in 32 bits with a sign.
N_SEEDS = 2**31


@dataclass(frozen=True)
class VectorFactory:
    """
    A function that is asked for all environments of a sampler at once.

    :param function: builds the vectorised environment
    :param n_envs: number of environments, B
    :param takes_number: whether the function is called with it
    :param takes_seed: whether the function is called with a seed, too
    """

    function: Callable[..., Any]
    n_envs: int
    takes_number: bool
    takes_seed: bool

    @classmethod
    def of(cls, factories: Sequence[EnvFactory]) -> "VectorFactory":
        """
        A function with one required positional parameter takes the number of environments. Such a function may have a
        parameter named ``seed``, too.

        :param factories: one function for each environment of the sampler
        """
        function = factories[0]
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            # Some classes of C tell nothing of their parameters.
            parameters = []
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        required = [
            parameter
            for parameter in parameters
            if parameter.kind in positional and parameter.default is parameter.empty and parameter.name != SEED
        ]
        takes_number = len(required) == 1
        takes_seed = takes_number and any(parameter.name == SEED for parameter in parameters)
        return cls(function, len(factories), takes_number, takes_seed)

    def __call__(self, seed: int | None = None) -> Any:
        """
        :param seed: for functions that take one; ``None`` for one that no other sampler has
        :return: what the function builds
        """
        arguments = (self.n_envs,) if self.takes_number else ()
        if not self.takes_seed:
            return self.function(*arguments)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        return self.function(*arguments, seed=seed % N_SEEDS)
