"""The samplers as a VecEnv."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_walle.backends import as_backend
from sb3_walle.backends.client import SamplerClient
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervised_sampler import END_TIMEOUT
from sb3_walle.backends.supervision import Supervision
from sb3_walle.envs.env_requests import EnvRequests, attribute_errors
from sb3_walle.samplers.factories import EnvFactory, packed, pickle_main_module_by_value
from sb3_walle.samplers.monitor import continuing_files
from sb3_walle.samplers.requests import (
    EnvIsWrapped,
    EnvMethod,
    GetAttr,
    GetEnvs,
    HasAttr,
    Request,
    Reset,
    ResetResult,
    SetAttr,
    Step,
    StepResult,
)
from sb3_walle.samplers.succession import Setters
from sb3_walle.samplers.vec_wrappers import UserWrapper
from sb3_walle.samplers.vectorized.factory import VectorFactory
from sb3_walle.sb3_private import clear_reset_arguments, env_indices, reset_arguments
from sb3_walle.transport.chunk import Observations
from sb3_walle.user_warning import warn_user


class SamplerVecEnv(VecEnv):
    """
    Environments that live in samplers.

    During ``learn()`` of an asynchronous algorithm the samplers collect experience on their own. At any other time this
    is an ordinary ``VecEnv``: ``reset()`` and ``step()`` drive the same environments in lockstep. Environment ``i``
    lives in sampler ``i // envs_per_sampler``.

    A sampler that dies is replaced by another one, which builds the same environments; what was last set in them with
    ``set_attr()``, and with methods whose names begin with ``set_``, is set again. In the middle of ``step()`` a death
    is an error, because the episode is lost; after it, ``reset()`` begins new ones.

    The processes end with ``close()``, at the end of a ``with`` block, when the object is garbage collected, or with
    the interpreter, whichever comes first. Samplers then finish their present step and close their environments,
    however long that takes: a warning tells after five seconds, and Ctrl-C or ``close_timeout`` ends it. After SIGTERM
    in ``learn()`` they have five seconds.

    :param env_fns: one function for each environment that builds it; or as many times the same function of a number,
        which builds a vectorised environment for all environments of a sampler
    :param envs_per_sampler: environments of each sampler, which steps them one after the other, or a vectorised one
    :param backend: where samplers live: ``"process"``, ``"inline"`` (this process, for debugging), or a
        :class:`~sb3_walle.backends.protocol.Backend`
    :param preload: names of modules to import once, before processes are forked, with those that ``env_fns`` refer
        to; only matters for start-up time and memory
    :param vec_wrapper: puts any ``VecEnv`` wrapper around the environments of one sampler, inside it, e.g.
        ``lambda venv: VecFrameStack(venv, 4)``; the wrapper sees only the environments of its own sampler
    :param on_failure: what happens when a sampler dies or an environment raises an exception while it collects:
        ``"restart"``, the default, warns and starts another sampler in its place, ``"raise"`` raises a
        :class:`SamplerError`. Mode ``"realtime"`` has no default: a restart resets a plant that may be unattended
    :param max_restarts: restarts within ten minutes, of all samplers together, after which the next death is an error
        all the same; by default 10, or one for each sampler if there are more
    :param step_timeout: longest time in seconds that a step or a reset of one environment may take before its sampler
        is killed and counts as dead; by default any time
    :param close_timeout: longest time in seconds that samplers may take to finish their present step and close their
        environments when they end, before they are killed; by default any time, as in SB3
    :param samplers_give_way: whether samplers give way to this process where both want a CPU: they are then a session
        of their own, between which and other sessions Linux shares the CPUs evenly. Their priorities are never changed,
        but in mode ``"realtime"``, where the learner gives way: pass ``False`` there
    :param start_method: ignored, with a warning; for programs that used ``SubprocVecEnv`` before
    :raises ValueError: if ``env_fns`` cannot be divided among samplers, two of them return the same environment, or
        the backend is unknown
    :raises TypeError: if one of ``env_fns`` cannot be pickled, or builds a vectorised environment of another number of
        environments
    :raises SamplerError: if an environment cannot be built
    :raises NotImplementedError: for an observation space that SB3 does not support; as in SB3, for some of them
        :class:`AssertionError` or :class:`TypeError`
    :raises OSError: if this process may not open as many file descriptors as the samplers take
    """

    def __init__(
        self,
        env_fns: Sequence[EnvFactory],
        envs_per_sampler: int = 1,
        backend: str | Backend = "process",
        preload: Sequence[str] = (),
        vec_wrapper: Callable[[VecEnv], VecEnv] | None = None,
        on_failure: str | None = None,
        max_restarts: int | None = None,
        step_timeout: float | None = None,
        close_timeout: float | None = None,
        samplers_give_way: bool = True,
        start_method: str | None = None,
    ) -> None:
        _check(env_fns, envs_per_sampler, vec_wrapper)
        #: where samplers live, as it was given
        self.backend = backend
        self._backend = as_backend(backend)
        if start_method is not None:
            warn_user(
                f"SamplerVecEnv ignores start_method={start_method!r}: samplers have a way of their own to start."
            )
        #: what happens when a sampler dies, as it was given
        self.on_failure = on_failure
        supervision = Supervision(
            "restart" if on_failure is None else on_failure,
            max_restarts,
            step_timeout,
            close_timeout,
            samplers_give_way,
        )
        pickle_main_module_by_value()
        self._first_env_fn = env_fns[0]
        self.envs_per_sampler = envs_per_sampler
        self.n_samplers = len(env_fns) // envs_per_sampler
        #: what has the samplers work, if anything: a :class:`~sb3_walle.collection.collector.Collector`, say
        self.collector: Any = None
        #: seed that the first environment began with
        self.first_seed: int | None = None
        self._closed = False
        self._stepping: np.ndarray | None = None
        layers = () if vec_wrapper is None else (UserWrapper(vec_wrapper),)
        if vec_wrapper is not None:
            preload = (*preload, "stable_baselines3")
        modules: set[str] = set()
        if not self._backend.shares_objects:
            travelling = packed(env_fns)
            env_fns, modules = travelling.factories, {*travelling.modules, *preload}
        #: how to ask the samplers for something
        self.client = SamplerClient(self._backend.launch(self.n_samplers, sorted(modules), supervision), supervision)
        self._requests = EnvRequests(self.client, self.n_samplers, envs_per_sampler)
        try:
            description = self._requests.build(env_fns, layers)
            super().__init__(len(env_fns), description.observation_space, description.action_space)
        except BaseException:
            # Others may still be building environments, and have nothing to save.
            self.client.close(END_TIMEOUT)
            raise
        self.metadata = description.metadata
        #: whether an environment whose episode has ended begins the next one in a step of the others, as vectorised
        #: ones may do
        self.resets_late = description.resets_late
        #: after how many steps the environments truncate an episode, ``None`` if that is unknown
        self.max_episode_steps = description.max_episode_steps
        #: whether samplers can truncate their episodes earlier, which they cannot in vectorised ones
        self.takes_limit = description.takes_limit
        #: whether the environments of a sampler are one vectorised environment
        self.is_vectorized = description.is_vectorized

    @property
    def envs(self) -> list[gym.Env]:
        """
        The environments as objects, as in ``DummyVecEnv``, where samplers live in this process (``backend="inline"``).

        :raises AttributeError: if they live in other processes
        """
        if not self._backend.shares_objects:
            raise AttributeError(
                "The environments live in the samplers' processes, so this one has no objects to show. "
                "Use get_attr(), set_attr() and env_method(), or backend='inline'."
            )
        with attribute_errors():
            return [env for envs in self._requests.ask(lambda _: GetEnvs()) for env in envs]

    @property
    def first_setters(self) -> Setters:
        """What was set in the first environment since it was built."""
        return self._requests.first_setters

    def build_env(self) -> Any:
        """
        :return: another environment like the first one, in this process, for the caller to close. Where environments
            are vectorised, a vectorised one of one environment
        """
        with continuing_files():
            # Its monitor file is that of the first environment.
            return VectorFactory([self._first_env_fn])()

    def reset(self) -> VecEnvObs:
        """:return: first observations of new episodes, ``[n_envs, ...]``"""
        self._check_resting()
        seeds, options = reset_arguments(self)
        results: list[ResetResult] = self._requests.ask(lambda envs: Reset(seeds[envs], options[envs]))
        if seeds[0] is not None:
            self.first_seed = seeds[0]
        clear_reset_arguments(self)
        self.reset_infos = [info for result in results for info in result.reset_infos]
        return stack([result.observations for result in results])

    def step_async(self, actions: np.ndarray) -> None:
        """Take one action for each environment, for :meth:`step_wait`."""
        self._stepping = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """:return: observations, rewards, dones and infos"""
        actions, self._stepping = self._stepping, None
        if actions is None:
            raise RuntimeError("step_wait() was called without step_async()")
        self._check_resting()
        results: list[StepResult] = self._requests.ask(lambda envs: Step(actions[envs]))
        self.reset_infos = [info for result in results for info in result.reset_infos]
        return (
            stack([result.observations for result in results]),
            np.concatenate([result.rewards for result in results]),
            np.concatenate([result.dones for result in results]),
            [info for result in results for info in result.infos],
        )

    def close(self) -> None:
        """Close the environments and end the samplers. May be called more than once."""
        if not self._closed:
            self._closed = True
            if self.collector is not None:
                self.collector.interrupt()
            self.client.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        :return: the attribute's value in each of the chosen environments
        :raises AttributeError: if they do not have it
        :raises SamplerError: if it cannot be pickled
        """
        with attribute_errors():
            return self._ask_some(lambda envs: GetAttr(attr_name, envs), indices)

    def has_attr(self, attr_name: str) -> bool:
        """:return: whether all environments have the attribute, or a wrapper around them"""
        return all(self._ask_some(lambda envs: HasAttr(attr_name, envs), None))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        As in SB3. Samplers that are collecting see the new value when they have finished what they were asked for
        before, which may be as much as a rollout; this call waits for it.
        """
        with attribute_errors():
            self._ask_some(lambda envs: SetAttr(attr_name, value, envs), indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        As in SB3. Samplers that are collecting make the call when they have finished what they were asked for before,
        which may be as much as a rollout; this call waits for it.
        """
        with attribute_errors():
            return self._ask_some(lambda envs: EnvMethod(method_name, method_args, method_kwargs, envs), indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """:return: whether each of the chosen environments is wrapped in the class"""
        if wrapper_class is Monitor:
            # Samplers see to that. The question would make each of them import SB3, and torch with it.
            return [True for _ in env_indices(self, indices)]
        return self._ask_some(lambda envs: EnvIsWrapped(wrapper_class, envs), indices)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: one RGB image of each environment"""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self.env_method("render")

    def __enter__(self) -> "SamplerVecEnv":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_resting(self) -> None:
        if getattr(self.collector, "is_driving", False):
            raise RuntimeError(
                "mode='realtime' is acting on the plants at this moment: reset() and step() are for the time before "
                "and after learn()."
            )

    def _ask_some(self, request_for: Callable[[list[int]], Request], indices: VecEnvIndices) -> list[Any]:
        chosen = [index % self.num_envs for index in env_indices(self, indices)]
        return self._requests.ask_some(request_for, chosen)


def stack(observations: Sequence[Observations]) -> Observations:
    """:return: one batch of the observations of all samplers"""
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.concatenate([batch[key] for batch in observations]) for key in first}
    return np.concatenate(observations)  # type: ignore[arg-type]


def _check(
    env_fns: Sequence[EnvFactory],
    envs_per_sampler: int,
    vec_wrapper: Callable[[VecEnv], VecEnv] | None,
) -> None:
    if vec_wrapper is not None and not callable(vec_wrapper):
        raise TypeError(
            "vec_wrapper must be a function that takes a VecEnv and returns it wrapped, e.g. "
            f"lambda venv: VecFrameStack(venv, n_stack=4), got {vec_wrapper!r}"
        )
    if not env_fns or not all(callable(env_fn) for env_fn in env_fns):
        raise ValueError(f"env_fns must be a list of functions that build one environment each, got {env_fns!r}")
    if envs_per_sampler < 1 or len(env_fns) % envs_per_sampler:
        raise ValueError(
            f"{len(env_fns)} environments cannot be divided into samplers of envs_per_sampler={envs_per_sampler}: "
            "it must be at least 1 and divide the number of environments"
        )
