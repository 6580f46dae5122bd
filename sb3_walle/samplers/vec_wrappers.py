"""VecEnv wrappers in a sampler: the very classes of SB3, or of the user, around the sampler's own environments."""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common import vec_env as sb3_vec_env
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_walle.samplers.infos import TERMINAL_OBSERVATION
from sb3_walle.samplers.layers import EnvLayer, InnermostEnvs, OnInfo, copy_observations
from sb3_walle.samplers.refusals import VectorizedEnvError
from sb3_walle.sb3_private import clear_reset_arguments, env_indices, reset_arguments, set_reset_arguments
from sb3_walle.transport.chunk import Observations

# These look at one step alone, so that a step of some environments only is nothing special to them.
_WITHOUT_MEMORY = frozenset({"VecCheckNan", "VecExtractDictObs", "VecTransposeImage"})


@dataclass(frozen=True)
class StockWrapper:
    """
    One of SB3's own wrappers.

    :param name: name of its class
    :param arguments: arguments of its constructor by name
    :param attributes: what to set once it is constructed, by name
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()

    def build(self, inner: EnvLayer, envs: InnermostEnvs) -> "WrappedEnvs":
        if envs.resets_late:
            self.check_late_resets()
        return WrappedEnvs(self._wrap, inner, envs)

    def check_late_resets(self) -> None:
        """:raises VectorizedEnvError: if it cannot be around environments that reset some rows while others step"""
        if self.name not in _WITHOUT_MEMORY:
            raise _late_resets_error(self.name)

    def _wrap(self, venv: VecEnv) -> VecEnv:
        with warnings.catch_warnings():
            # The learner has shown them when the samplers were wrapped.
            warnings.simplefilter("ignore")
            wrapped = getattr(sb3_vec_env, self.name)(venv, **dict(self.arguments))
        for name, value in self.attributes:
            setattr(wrapped, name, value)
        return wrapped


@dataclass(frozen=True)
class UserWrapper:
    """A wrapper of the user's choice."""

    wrap: Callable[[VecEnv], VecEnv]

    def build(self, inner: EnvLayer, envs: InnermostEnvs) -> "WrappedEnvs":
        if envs.resets_late:
            raise _late_resets_error("vec_wrapper")
        return WrappedEnvs(self.wrap, inner, envs)


class WrappedEnvs:
    """
    A layer that is a ``VecEnv`` wrapper around another layer.

    :raises TypeError: if ``wrap`` returns something else than a ``VecEnv``
    :raises ValueError: if it changes the number of environments
    """

    def __init__(self, wrap: Callable[[VecEnv], VecEnv], inner: EnvLayer, envs: InnermostEnvs) -> None:
        self._inner_env = _LayerVecEnv(inner, envs)
        self.venv = wrap(self._inner_env)
        if not isinstance(self.venv, VecEnv):
            raise TypeError(f"vec_wrapper must take a VecEnv and return it wrapped, but it returned {type(self.venv)}")
        if self.venv.num_envs != inner.n_envs:
            raise ValueError(
                f"vec_wrapper turned {inner.n_envs} environments into {self.venv.num_envs}, "
                "but every environment must remain one"
            )
        self.n_envs = inner.n_envs
        self.observation_space, self.action_space = self.venv.observation_space, self.venv.action_space
        # The wrapper learns what the environments show as if they had just been reset.
        self.observations = _contiguous_copy(self.venv.reset())  # type: ignore[arg-type]
        self._inner_env.is_adopted = True

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        set_reset_arguments(self._inner_env, seeds, options)
        copy_observations(self.venv.reset(), self.observations)  # type: ignore[arg-type]

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        after, rewards[...], dones[...], infos = self.venv.step(np.asarray(actions))
        copy_observations(after, observations)  # type: ignore[arg-type]
        for env, info in enumerate(infos):
            on_info(env, info, bool(dones[env]))

    def keep(self, observations: Observations) -> None:
        copy_observations(observations, self.observations)
        self._inner_env.keep()


class _LayerVecEnv(VecEnv):
    """A layer as the ``VecEnv`` that a wrapper is put around."""

    def __init__(self, layer: EnvLayer, envs: InnermostEnvs) -> None:
        self._layer, self._envs = layer, envs
        self._actions: np.ndarray | None = None
        self._last: Observations | None = None
        #: whether the wrapper knows what the environments show; until then a reset only tells it
        self.is_adopted = False
        self.metadata = envs.metadata
        super().__init__(layer.n_envs, layer.observation_space, layer.action_space)

    def reset(self) -> VecEnvObs:
        if self.is_adopted:
            self._layer.reset(*reset_arguments(self))
            clear_reset_arguments(self)
            self.reset_infos = self._envs.reset_infos
        self._last = None
        return deepcopy(self._layer.observations)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        if self._actions is None:
            raise RuntimeError("step_wait() was called without step_async()")
        self._last = _empty_like(self._layer.observations)
        rewards, dones = np.empty(self.num_envs, np.float32), np.empty(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

        def keep_info(env: int, info: dict[str, Any], done: bool) -> None:
            # The environment is reset before the wrapper sees this, and may use its observation again.
            infos[env] = {**info, TERMINAL_OBSERVATION: deepcopy(info[TERMINAL_OBSERVATION])} if done else info

        self._layer.step(self._actions, self._last, rewards, dones, keep_info)
        self.reset_infos = self._envs.reset_infos
        return deepcopy(self._last), rewards, dones, infos

    def keep(self) -> None:
        if self._last is not None:
            self._layer.keep(self._last)

    def close(self) -> None:
        self._envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.env_method("render") if self.render_mode == "rgb_array" else [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return self._envs.get_attr(attr_name, env_indices(self, indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        self._envs.set_attr(attr_name, value, env_indices(self, indices))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        return self._envs.env_method(method_name, method_args, method_kwargs, env_indices(self, indices))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return self._envs.env_is_wrapped(wrapper_class, env_indices(self, indices))


def _late_resets_error(wrapper: str) -> VectorizedEnvError:
    return VectorizedEnvError(
        f"{wrapper} cannot be around a vectorised environment that resets some of its environments in a call in which "
        "others make a step, which is what autoreset_mode NEXT_STEP means. Build it with SAME_STEP: "
        'gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="sync", '
        'vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}). A VecNormalize may be around any.'
    )


def _contiguous_copy(observations: Observations) -> Observations:
    """Laid out as in a chunk, on which the rounding of torch's convolutions depends."""
    if isinstance(observations, dict):
        return {key: array.copy(order="C") for key, array in observations.items()}
    return observations.copy(order="C")


def _empty_like(observations: Observations) -> Observations:
    if isinstance(observations, dict):
        return {key: np.empty_like(array) for key, array in observations.items()}
    return np.empty_like(observations)
