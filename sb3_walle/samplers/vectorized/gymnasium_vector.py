"""Gymnasium's vectorised environments: ``SyncVectorEnv``, ``AsyncVectorEnv``, and those that are written as one."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from sb3_walle.samplers.infos import EPISODE
from sb3_walle.samplers.monitor import is_wrapped
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.samplers.vectorized.detection import name_of
from sb3_walle.samplers.vectorized.row_infos import info_of_row
from sb3_walle.samplers.vectorized.whole_object import WholeObject
from sb3_walle.transport.chunk import Observations

_NEXT_STEP, _SAME_STEP, _DISABLED = "NEXT_STEP", "SAME_STEP", "DISABLED"
# As long as samplers have after SIGTERM.
_CLOSE_SECONDS = 5.0
_FINAL_OBSERVATION, _FINAL_INFO = "final_obs", "final_info"


class GymnasiumStep:
    """What a step led to in one of Gymnasium's modes of automatic resets."""

    def __init__(self, mode: str, observations: Observations, rewards: Any, ends: Any, cuts: Any, infos: Any) -> None:
        self.observations, self.rewards = observations, rewards
        self.dones = np.logical_or(ends, cuts)
        self.has_reset = mode == _SAME_STEP
        # Where a DISABLED environment resets some rows, Gymnasium's RecordEpisodeStatistics forgets all of them.
        self._has_statistics = mode != _DISABLED
        self.tells_of_episode = infos.get(f"_{EPISODE}") if self._has_statistics else None
        self._ends, self._infos = ends, infos

    def info(self, row: int) -> dict[str, Any]:
        info = info_of_row(self._infos, row)
        if not self._has_statistics:
            info.pop(EPISODE, None)
        if not (self.has_reset and self.dones[row]):
            return info
        # What else there is says how the next episode begins, but for what wrappers have added.
        statistics = {EPISODE: info[EPISODE]} if EPISODE in info else {}
        return {**info.get(_FINAL_INFO, {}), **statistics}

    def is_truncated(self, row: int) -> bool:
        return not self._ends[row]

    def final_observation(self, row: int) -> Any:
        return self._infos[_FINAL_OBSERVATION][row] if _FINAL_OBSERVATION in self._infos else None

    def reset_info(self, row: int) -> dict[str, Any]:
        info = info_of_row(self._infos, row)
        return {key: value for key, value in info.items() if key not in (_FINAL_OBSERVATION, _FINAL_INFO, EPISODE)}


class GymnasiumFirstObservations:
    """What a reset returned."""

    def __init__(self, observations: Observations, infos: Any) -> None:
        self.observations, self._infos = observations, infos

    def info(self, row: int) -> dict[str, Any]:
        return info_of_row(self._infos, row)


class GymnasiumVector:
    """
    A ``gymnasium.vector.VectorEnv``.

    Rows whose episode has ended are reset at once where that is possible for some rows alone: in mode DISABLED, which
    asks for it, and by ``SyncVectorEnv`` and ``AsyncVectorEnv``. Others in mode NEXT_STEP reset them in the next step.

    :param env: the vectorised environment, perhaps in wrappers
    :raises VectorizedEnvError: if it does not tell when it resets its environments
    """

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        self.env = env
        inner = env.unwrapped
        self.n_envs = env.num_envs
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self.metadata = env.metadata
        self._mode = _mode_of(env)
        self._sync = inner if isinstance(inner, SyncVectorEnv) else None
        self._async = inner if isinstance(inner, AsyncVectorEnv) else None
        self.single_envs: list[gym.Env] = [] if self._sync is None else list(self._sync.envs)
        self.resets_late = self._mode == _NEXT_STEP and not self._can_reset_rows()
        self._whole = WholeObject(env, self.n_envs)

    def _can_reset_rows(self) -> bool:
        """
        Whether an environment in mode NEXT_STEP takes ``options={"reset_mask": ...}`` for what it means. Wrappers may
        take it for a reset of all rows.
        """
        if self.env is self._async:
            # Without shared memory, it would reset the rows once more with the next step.
            return bool(self._async.shared_memory)
        return self.env is self._sync

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> GymnasiumFirstObservations:
        seed: Any = seeds[0]
        if seed is not None and (self._sync or self._async) is not None:
            seed = list(seeds)
        return GymnasiumFirstObservations(*self.env.reset(seed=seed, options=_common(options)))

    def reset_rows(self, rows: np.ndarray) -> GymnasiumFirstObservations:
        mask = np.zeros(self.n_envs, dtype=np.bool_)
        mask[rows] = True
        observations, infos = self.env.reset(options={"reset_mask": mask})
        if isinstance(observations, dict):
            chosen: Observations = {key: array[rows] for key, array in observations.items()}
        else:
            chosen = observations[rows]
        return GymnasiumFirstObservations(chosen, infos)

    def step(self, actions: np.ndarray) -> GymnasiumStep:
        return GymnasiumStep(self._mode, *self.env.step(actions))

    def render(self) -> Sequence[Any]:
        frames = self.env.render()
        return [None] * self.n_envs if frames is None else frames

    def get_attr(self, name: str, rows: Sequence[int]) -> list[Any]:
        if self._sync is not None:
            return [self._sync.envs[row].get_wrapper_attr(name) for row in rows]
        if self._async is not None:
            self._check_attr(name)
            values = self._async.get_attr(name)
            return [values[row] for row in rows]
        return self._whole.get_attr(name, rows)

    def has_attr(self, name: str, rows: Sequence[int]) -> list[bool]:
        of_objects = self._sync or self._async
        if of_objects is not None:
            # Not get_attr(): a worker of AsyncVectorEnv ends with the first attribute that is not there.
            answers = of_objects.call("has_wrapper_attr", name)
            return [answers[row] for row in rows]
        return [self._whole.has_attr(name) for _ in rows]

    def set_attr(self, name: str, value: Any, rows: Sequence[int]) -> None:
        if self._sync is not None:
            for row in rows:
                self._sync.envs[row].set_wrapper_attr(name, value)
        elif self._async is not None:
            if len(set(rows)) == self.n_envs:
                values = [value] * self.n_envs
            else:
                values = self.get_attr(name, range(self.n_envs))
                for row in rows:
                    values[row] = value
            self._async.set_attr(name, values)
        else:
            self._whole.set_attr(name, value, rows)

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], rows: Sequence[int]) -> list[Any]:
        if self._sync is not None:
            return [self._sync.envs[row].get_wrapper_attr(name)(*args, **kwargs) for row in rows]
        if self._async is not None:
            if set(rows) != set(range(self.n_envs)):
                raise AttributeError(
                    f"AsyncVectorEnv calls {name!r} in all of its {self.n_envs} environments or in none. Leave out "
                    "indices, or name all environments of a sampler."
                )
            self._check_attr(name)
            results = self._async.call(name, *args, **kwargs)
            return [results[row] for row in rows]
        return self._whole.env_method(name, args, kwargs, rows)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], rows: Sequence[int]) -> list[bool]:
        if self._sync is not None:
            return [is_wrapped(self._sync.envs[row], wrapper_class) for row in rows]
        if self._async is not None:
            raise NotImplementedError("AsyncVectorEnv does not tell in which wrappers its environments are")
        return [False for _ in rows]

    def close(self) -> None:
        if self._async is None:
            self.env.close()
        else:
            # Where a step has failed, it would wait for the answers of its processes for ever.
            self.env.close(timeout=_CLOSE_SECONDS)

    def _check_attr(self, name: str) -> None:
        if not all(self.has_attr(name, range(self.n_envs))):
            raise AttributeError(f"The environments of an AsyncVectorEnv have no attribute {name!r}")


def _mode_of(env: gym.vector.VectorEnv) -> str:
    mode = getattr(env.metadata.get("autoreset_mode"), "name", None)
    if mode not in (_NEXT_STEP, _SAME_STEP, _DISABLED):
        raise VectorizedEnvError(
            f"{name_of(env)} does not say when it resets its environments. Its metadata must have the key "
            '"autoreset_mode" with one of gymnasium.vector.AutoresetMode (Gymnasium 1.1 or later).'
        )
    return mode


def _common(options: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Gymnasium's vectorised environments take one dictionary of options for all rows."""
    if any(other != options[0] for other in options[1:]):
        raise ValueError(f"A vectorised environment takes the same reset options in all rows, got {list(options)}")
    return dict(options[0]) or None
