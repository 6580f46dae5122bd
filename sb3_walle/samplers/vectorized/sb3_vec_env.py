"""SB3's ``VecEnv``, or what has its methods."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.samplers.infos import EPISODE, TERMINAL_OBSERVATION, TRUNCATED
from sb3_walle.transport.chunk import Observations


class VecEnvStep:
    """What a step led to. Rows whose episode ended have begun the next one."""

    has_reset = True

    def __init__(
        self, observations: Observations, rewards: Any, dones: Any, infos: Any, reset_infos: list[dict[str, Any]]
    ) -> None:
        self.observations, self.rewards, self.dones = observations, rewards, np.asarray(dones, dtype=bool)
        self._infos, self._reset_infos = infos, reset_infos
        tells = [EPISODE in info for info in infos]
        self.tells_of_episode = np.array(tells) if any(tells) else None

    def info(self, row: int) -> dict[str, Any]:
        return dict(self._infos[row])

    def is_truncated(self, row: int) -> bool:
        return bool(self._infos[row].get(TRUNCATED, False))

    def final_observation(self, row: int) -> Any:
        return self._infos[row].get(TERMINAL_OBSERVATION)

    def reset_info(self, row: int) -> dict[str, Any]:
        return self._reset_infos[row]


class VecEnvFirstObservations:
    """What a reset returned."""

    def __init__(self, observations: Observations, reset_infos: list[dict[str, Any]]) -> None:
        self.observations, self._reset_infos = observations, reset_infos

    def info(self, row: int) -> dict[str, Any]:
        return self._reset_infos[row]


class VecEnvVector:
    """
    A ``VecEnv``.

    :param env: the ``VecEnv``, perhaps in its wrappers
    """

    resets_late = False

    def __init__(self, env: Any) -> None:
        self.env = env
        self.n_envs = env.num_envs
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.metadata: dict[str, Any] = getattr(env, "metadata", None) or {}
        # DummyVecEnv's.
        self.single_envs: list[gym.Env] = list(getattr(getattr(env, "unwrapped", env), "envs", []))

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> VecEnvFirstObservations:
        if seeds[0] is not None:
            # A VecEnv gives each environment one more than the one before it.
            self.env.seed(int(seeds[0]))
        if any(options):
            self.env.set_options(list(options))
        return VecEnvFirstObservations(self.env.reset(), self._reset_infos())

    def reset_rows(self, rows: np.ndarray) -> VecEnvFirstObservations:
        raise NotImplementedError("A VecEnv resets its environments itself")

    def step(self, actions: np.ndarray) -> VecEnvStep:
        observations, rewards, dones, infos = self.env.step(actions)
        return VecEnvStep(observations, rewards, dones, infos, self._reset_infos())

    def render(self) -> Sequence[Any]:
        return self.env.get_images()

    def get_attr(self, name: str, rows: Sequence[int]) -> list[Any]:
        return self.env.get_attr(name, list(rows))

    def has_attr(self, name: str, rows: Sequence[int]) -> list[bool]:
        return [bool(self.env.has_attr(name)) for _ in rows]

    def set_attr(self, name: str, value: Any, rows: Sequence[int]) -> None:
        self.env.set_attr(name, value, list(rows))

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        return self.env.env_method(name, *args, indices=list(rows), **kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], rows: Sequence[int]) -> list[bool]:
        return self.env.env_is_wrapped(wrapper_class, list(rows))

    def close(self) -> None:
        self.env.close()

    def _reset_infos(self) -> list[dict[str, Any]]:
        return getattr(self.env, "reset_infos", None) or [{} for _ in range(self.n_envs)]
