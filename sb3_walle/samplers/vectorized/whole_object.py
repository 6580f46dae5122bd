"""Attributes and methods of a vectorised environment whose rows are no objects of their own."""

from collections.abc import Sequence
from typing import Any

from sb3_walle.samplers.vectorized.detection import name_of


class WholeObject:
    """
    The vectorised environment itself, in the place of each of its rows.

    :param env: the vectorised environment, with its wrappers
    :param n_envs: number of rows
    """

    def __init__(self, env: Any, n_envs: int) -> None:
        self._env, self._n_envs = env, n_envs

    def get_attr(self, name: str, rows: Sequence[int]) -> list[Any]:
        return [getattr(self._holder(name), name) for _ in rows]

    def has_attr(self, name: str) -> bool:
        return any(hasattr(layer, name) for layer in _layers(self._env))

    def set_attr(self, name: str, value: Any, rows: Sequence[int]) -> None:
        self._check_all(f"sets {name!r}", rows)
        holder = self._holder(name) if self.has_attr(name) else self._env
        setattr(holder, name, value)

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        self._check_all(f"calls {name!r}", rows)
        result = getattr(self._holder(name), name)(*args, **kwargs)
        return [result for _ in rows]

    def _holder(self, name: str) -> Any:
        for layer in _layers(self._env):
            if hasattr(layer, name):
                return layer
        raise AttributeError(
            f"{name_of(self._env)} has no attribute {name!r}. It is one object that steps all of its environments, and "
            "offers its own attributes and methods only, not those of single environments."
        )

    def _check_all(self, what: str, rows: Sequence[int]) -> None:
        if set(rows) != set(range(self._n_envs)):
            raise AttributeError(
                f"{name_of(self._env)} is one object that steps {self._n_envs} environments: a sampler {what} in all "
                "of them or in none. Leave out indices, or name all environments of a sampler."
            )


def _layers(env: Any) -> list[Any]:
    """A vectorised environment inside of its wrappers, from the outside to the inside."""
    layers = [env]
    while layers[-1] is not getattr(layers[-1], "unwrapped", layers[-1]):
        layers.append(layers[-1].env)
    return layers
