"""The environments of one sampler, stepped one after the other."""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_walle.realtime.plant import Plant
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.errors import ObservationError
from sb3_walle.samplers.factories import EnvFactory
from sb3_walle.samplers.infos import EPISODE, TERMINAL_OBSERVATION, TRUNCATED
from sb3_walle.samplers.layers import OnInfo, copy_observations, empty_observations, store
from sb3_walle.samplers.monitor import is_wrapped, monitor_files, monitored
from sb3_walle.samplers.observation_check import MISFITS, as_stored, wrong_observation
from sb3_walle.samplers.refusals import SharedEnvError
from sb3_walle.samplers.vectorized import check_single
from sb3_walle.transport.chunk import Observations, row
from sb3_walle.transport.pulse import Pulse


class SamplerEnvs:
    """
    B environments that reset themselves at the end of an episode, with the semantics of SB3's ``DummyVecEnv``.

    Unlike it, they write observations straight to where they are needed and do not deep-copy every info.

    :param factories: builds one environment each
    :param pulse: told whenever an environment begins a step or a reset; ``None`` where no step is timed
    :param first_env: number of the first environment among those of all samplers
    :raises TypeError: if a factory returns something else than a Gymnasium environment, or a vectorised one
    :raises ValueError: if two factories return the same environment, or their spaces differ
    :raises UnsupportedSpaceError: if observations are no arrays
    """

    #: each environment is reset as soon as its episode has ended
    resets_late = False

    def __init__(self, factories: Sequence[EnvFactory], pulse: Pulse | None = None, first_env: int = 0) -> None:
        self.envs = [monitored(_built(factory)) for factory in factories]
        if len({id(env.unwrapped) for env in self.envs}) != len(self.envs):
            raise SharedEnvError
        #: number of environments, B
        self.n_envs = len(self.envs)
        first = self.envs[0]
        self.observation_space, self.action_space = first.observation_space, first.action_space
        for env in self.envs[1:]:
            if (env.observation_space, env.action_space) != (self.observation_space, self.action_space):
                raise ValueError(
                    "All environments must have the same spaces, got "
                    f"{(self.observation_space, self.action_space)} and {(env.observation_space, env.action_space)}"
                )
        #: Gymnasium's metadata
        self.metadata: dict[str, Any] = getattr(first, "metadata", {})
        #: process and address of each environment, which no two have in common
        self.identities: list[tuple[int, ...]] = [(os.getpid(), id(env.unwrapped)) for env in self.envs]
        #: names of the monitor files that each environment writes
        self.monitor_files = [monitor_files(env) for env in self.envs]
        #: whether each step tells the info of every environment, or only of those that end an episode
        self.tells_every_info = True
        self.first_env, self.pulse = first_env, pulse
        self._plants: list[Plant] = []
        self.as_environments()
        #: what the environments show at present, ``[B, ...]``
        self.observations = empty_observations(self.observation_space, self.n_envs)
        #: what the last reset of each environment returned together with the observation
        self.reset_infos: list[dict[str, Any]] = [{} for _ in self.envs]

    def as_environments(self) -> None:
        """Step and reset the environments as fast as they are asked to."""
        for plant in self._plants:
            plant.let_go()
        self._plants = []
        self._step_functions: list[Callable[..., Any]] = [_with_pulse(env.step, self.pulse) for env in self.envs]
        self._reset_functions: list[Callable[..., Any]] = [_with_pulse(env.reset, self.pulse) for env in self.envs]

    def as_plants(self, settings: RealtimeSettings) -> list[Plant]:
        """
        Step and reset the environments in real time from now on.

        :param settings: how
        :return: what does it, for each environment
        """
        self.as_environments()
        calls = zip(self.envs, self._step_functions, self._reset_functions, strict=True)
        self._plants = plants = [
            Plant(env, step, reset, settings, deepcopy(row(self.observations, index)))
            for index, (env, step, reset) in enumerate(calls)
        ]
        self._step_functions = [plant.step for plant in plants]
        self._reset_functions = [plant.reset for plant in plants]
        return plants

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        for index, reset in enumerate(self._reset_functions):
            keywords = {"options": options[index]} if options[index] else {}
            observation, self.reset_infos[index] = reset(seed=seeds[index], **keywords)
            self._store_first(self.observations, index, observation)

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        for index, step in enumerate(self._step_functions):
            observation, rewards[index], terminated, truncated, info = step(actions[index])
            is_end = terminated or truncated
            # Also the last observation of an episode, so that one that does not fit fails here and not in the learner.
            try:
                store(observations, index, observation)
            except MISFITS as error:
                which = "the last observation of an episode" if is_end else "an observation"
                raise self._wrong(observation, which, index) from error
            if is_end:
                # Environments may say it with an integer, a NumPy boolean or an array of one.
                dones[index] = True
                info[TRUNCATED] = not terminated
                info[TERMINAL_OBSERVATION] = as_stored(observation, observations, index)
                on_info(index, info, True)
                observation, self.reset_infos[index] = self._reset_functions[index]()
                self._store_first(observations, index, observation)
            else:
                dones[index] = False
                if self.tells_every_info or EPISODE in info:
                    info[TRUNCATED] = False
                    on_info(index, info, False)

    def keep(self, observations: Observations) -> None:
        copy_observations(observations, self.observations)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def render(self, indices: Sequence[int]) -> list[Any]:
        """:return: one frame of each of the environments"""
        return [self.envs[index].render() for index in indices]

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """:return: an attribute of each environment, or of any wrapper around it"""
        return [self.envs[index].get_wrapper_attr(name) for index in indices]

    def has_attr(self, name: str, indices: Sequence[int]) -> list[bool]:
        """:return: whether each environment, or any wrapper around it, has an attribute"""
        return [_has_attr(self.envs[index], name) for index in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        """Set an attribute of the outermost wrapper of each environment, as SB3 does."""
        for index in indices:
            setattr(self.envs[index], name, value)

    def env_method(self, name: str, args: tuple, kwargs: dict[str, Any], indices: Sequence[int]) -> list[Any]:
        """:return: what a method of each environment, or of any wrapper around it, returns"""
        return [self.envs[index].get_wrapper_attr(name)(*args, **kwargs) for index in indices]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Sequence[int]) -> list[bool]:
        return [is_wrapped(self.envs[index], wrapper_class) for index in indices]

    def _store_first(self, observations: Observations, index: int, observation: Any) -> None:
        try:
            store(observations, index, observation)
        except MISFITS as error:
            raise self._wrong(observation, "the first observation of an episode", index) from error

    def _wrong(self, observation: Any, which: str, index: int) -> ObservationError:
        return wrong_observation(observation, which, self.first_env + index, self.observation_space)


def _with_pulse(function: Callable[..., Any], pulse: Pulse | None) -> Callable[..., Any]:
    if pulse is None:
        return function
    beat = pulse.beat

    def call(*args: Any, **kwargs: Any) -> Any:
        beat()
        return function(*args, **kwargs)

    return call


def _has_attr(env: gym.Env, name: str) -> bool:
    # As SB3 asks. Gymnasium's has_wrapper_attr() takes a property that raises AttributeError for one that is there.
    try:
        env.get_wrapper_attr(name)
    except AttributeError:
        return False
    return True


def _built(factory: EnvFactory) -> gym.Env:
    env = factory()
    check_single(env)
    if not isinstance(env, gym.Env):
        raise TypeError(
            f"An environment factory must return a gymnasium.Env, got {type(env)}. "
            "Wrap an environment of the old Gym API in shimmy's compatibility wrapper."
        )
    return env
