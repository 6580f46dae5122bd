"""EnvPool's environments: C++ that steps all rows in threads of its own (https://envpool.readthedocs.io)."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized.factory import N_SEEDS
from sb3_walle.samplers.vectorized.gymnasium_vector import GymnasiumFirstObservations, GymnasiumStep
from sb3_walle.samplers.vectorized.whole_object import WholeObject


def is_pool(env: Any) -> bool:
    """:return: whether it is an environment of EnvPool, perhaps in wrappers"""
    inner = getattr(env, "unwrapped", env)
    return any(cls.__module__.partition(".")[0] == "envpool" for cls in type(inner).__mro__)


class EnvPoolVector:
    """
    A pool that was made with ``env_type="gymnasium"``.

    EnvPool takes its seeds when it is built, and by default the same ones in every sampler. So a sampler builds the
    pool anew from its own settings. The pools of all samplers together have the seeds that one pool of all environments
    has; where SB3 seeds its environments, they get SB3's seeds.

    :param env: the pool, perhaps in Gymnasium's wrappers
    :param first_env: number of its first environment among those of all samplers
    :param incarnation: how many samplers with these environments have died before
    :raises VectorizedEnvError: for what SB3 could not train in either
    """

    def __init__(self, env: Any, first_env: int, incarnation: int) -> None:
        self.env = env
        _check(self._pool)
        self.n_envs = int(self._pool.config["num_envs"])
        self.observation_space = getattr(env, "single_observation_space", env.observation_space)
        self.action_space = getattr(env, "single_action_space", env.action_space)
        self.metadata: dict[str, Any] = getattr(env, "metadata", {})
        self.single_envs: list[gym.Env] = []
        # Its wrappers may take a reset of some rows for one of all.
        self.resets_late = env is not self._pool
        if first_env or incarnation:
            self._build_anew(_seeds(self._pool.config, first_env, incarnation))

    @property
    def _pool(self) -> Any:
        return getattr(self.env, "unwrapped", self.env)

    @property
    def _whole(self) -> WholeObject:
        return WholeObject(self.env, self.n_envs)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> GymnasiumFirstObservations:
        if any(options):
            raise ValueError(f"EnvPool takes no reset options, got {list(options)}")
        known = [seed for seed in seeds if seed is not None]
        if known:
            self._build_anew([int(seed) % N_SEEDS for seed in known])
        return GymnasiumFirstObservations(*self.env.reset())

    def reset_rows(self, rows: np.ndarray) -> GymnasiumFirstObservations:
        observations, infos = self._pool.reset(rows.astype(np.int32))
        return _ResetRows(observations, infos, rows)

    def step(self, actions: np.ndarray) -> GymnasiumStep:
        return GymnasiumStep("NEXT_STEP", *self.env.step(actions))

    def render(self) -> Sequence[Any]:
        frames = self._pool.render(np.arange(self.n_envs))
        return [None] * self.n_envs if frames is None else frames

    def get_attr(self, name: str, rows: Sequence[int]) -> list[Any]:
        return self._whole.get_attr(name, rows)

    def has_attr(self, name: str, rows: Sequence[int]) -> list[bool]:
        return [self._whole.has_attr(name) for _ in rows]

    def set_attr(self, name: str, value: Any, rows: Sequence[int]) -> None:
        self._whole.set_attr(name, value, rows)

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        return self._whole.env_method(name, args, kwargs, rows)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], rows: Sequence[int]) -> list[bool]:
        return [False for _ in rows]

    def close(self) -> None:
        self.env.close()

    def _build_anew(self, seeds: list[int]) -> None:
        old = self._pool
        # Older versions take the seed of the first environment only; each other has one more than that before it.
        named = {"seed": seeds[0], "env_seed": seeds}
        config = old.spec.config
        new = type(old)(type(old.spec)(config._replace(**{key: named[key] for key in named if key in config._fields})))
        for name, value in vars(old).items():
            # What envpool.make() sets after construction, how it renders, and what was set since.
            if name not in vars(new):
                setattr(new, name, value)
        if self.env is old:
            self.env = new
        else:
            wrapper = self.env
            while wrapper.env is not old:
                wrapper = wrapper.env
            wrapper.env = new
        old.close()


class _ResetRows(GymnasiumFirstObservations):
    """EnvPool returns nothing of the rows that it did not reset."""

    def __init__(self, observations: Any, infos: Any, rows: np.ndarray) -> None:
        super().__init__(observations, infos)
        self._places = {int(row): place for place, row in enumerate(rows)}

    def info(self, row: int) -> dict[str, Any]:
        return super().info(self._places[row])


def _seeds(config: dict[str, Any], first_env: int, incarnation: int) -> list[int]:
    """Seeds of a sampler's environments: those after the ones of the samplers before it."""
    own = list(config.get("env_seed") or [])
    seeds = own or [config["seed"] + row for row in range(config["num_envs"])]
    seeds = [(seed + first_env) % N_SEEDS for seed in seeds]
    if incarnation:
        seeds = [int(np.random.SeedSequence((seed, incarnation)).generate_state(1)[0]) % N_SEEDS for seed in seeds]
    return seeds


def _check(pool: Any) -> None:
    config = pool.config
    if not hasattr(pool, "observation_space") or not isinstance(pool.observation_space, gym.Space):
        raise VectorizedEnvError('Samplers step pools that were made with envpool.make(..., env_type="gymnasium")')
    if config["batch_size"] not in (0, config["num_envs"]):
        raise VectorizedEnvError(
            f"Samplers step all environments of a pool at once. Leave out batch_size={config['batch_size']}: samplers "
            "themselves do not wait for each other."
        )
    if config.get("max_num_players", 1) != 1:
        raise VectorizedEnvError("SB3 trains single agents, and this pool has environments with several players")
