"""The mixin that all asynchronous algorithms have in common: environments in samplers, and a collector at work."""

import warnings
from time import time_ns
from typing import Any, ClassVar

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_walle.algorithm.compatibility import check_model
from sb3_walle.algorithm.infos import may_look_at_infos, wants_all_infos
from sb3_walle.algorithm.memory import memory_advice
from sb3_walle.algorithm.persistence import Persistence
from sb3_walle.algorithm.policy_settings import PolicySettings, policy_settings
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervision import supervision_of
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import check_mode
from sb3_walle.env_sources import EnvSource, in_samplers
from sb3_walle.samplers.actors.choice import check_actor
from sb3_walle.samplers.infos import InfoKeys, checked_info_keys, select_infos
from sb3_walle.termination import termination_as_exit
from sb3_walle.wrappers import (
    NormalizeArgument,
    WrappedSamplers,
    normalized,
    takes_gamma_of_algorithm,
    wrapped_samplers,
)


class AsyncMixin(Persistence):
    """
    What :class:`~sb3_walle.AsyncOnPolicyMixin` and :class:`~sb3_walle.AsyncOffPolicyMixin` have in common. Those stand
    before an algorithm of SB3, whose arguments keep their meaning and order; ``n_envs`` is
    ``n_samplers * envs_per_sampler``.

    As in SB3, a model does not close its environments on its own; samplers end when nobody refers to them any more. At
    the end of a ``with`` block the model's environments are closed, whoever built them.

    .. code-block:: python

        with AsyncPPO("MlpPolicy", "HalfCheetah-v4") as model:
            model.learn()

    A model can be pickled and copied. Its environments stay behind: give the copy some with :meth:`set_env`.

    :param policy: as in SB3
    :param env: an env id, a function that builds an environment, an environment, a :class:`SamplerVecEnv`, or a
        ``DummyVecEnv`` whose environments can be moved; either of these in SB3's own wrappers, too. Any other
        ``VecEnv`` trains as in SB3, without samplers.
    :param args: the algorithm's other arguments
    :param n_samplers: number of samplers, by default one for each CPU that this process may use
    :param envs_per_sampler: environments of each sampler, stepped one after the other with one forward pass for all
    :param mode: ``"pipelined"``: samplers collect a rollout while the learner trains on the one before (policy lag 1,
        reproducible); ``"sync"``: they wait for each update (lag 0, SB3's own algorithm); ``"free"``: first come, first
        served, so that slow samplers hold nobody up. By default the first of the algorithm's ``supported_modes``.
    :param max_policy_lag: in mode ``"free"``, how many updates the policy that chose an action may be behind when the
        action is learned from, by default 1, and any number for off-policy algorithms, which learn from older ones
        anyway
    :param actor: what runs the policy in samplers: ``"torch"``, ``"numpy"`` (MLP policies, several times faster), or
        ``"auto"`` for NumPy wherever it computes the same distribution
    :param backend: where samplers live: ``"process"``, ``"inline"`` for this process, or a
        :class:`~sb3_walle.backends.protocol.Backend`
    :param normalize: whether to put a ``VecNormalize`` around the samplers, or its arguments; its ``gamma`` is the
        algorithm's unless it is given. As in SB3, its statistics are not part of the saved model:
        ``model.get_vec_normalize_env().save(path)``
    :param info_keys: what callbacks find in ``locals["infos"]`` besides what ends an episode: ``"all"``; the keys that
        they need, if any, which is cheaper; or ``"auto"``: all if there is a callback that is not SB3's own, or a
        subclass overrides a method that is given infos, else none
    :param on_failure: what happens when a sampler dies, or an environment raises an exception while it collects:
        ``"restart"`` (the default) warns and starts another sampler in its place, ``"raise"`` ends ``learn()``
    :param max_restarts: restarts within ten minutes, of all samplers together, after which the next death ends
        ``learn()`` all the same; by default 10, or one for each sampler if there are more
    :param step_timeout: longest time in seconds that a step or a reset of one environment may take before its sampler
        is killed and counts as dead; by default any time
    :param close_timeout: longest time in seconds that samplers may take to finish their present step and close their
        environments when they end, before they are killed; by default any time, as in SB3
    :param samplers_give_way: whether samplers give way to the learner where both want a CPU: they are then a session of
        their own, between which and other sessions Linux shares the CPUs evenly. Their priorities are never changed. By
        default True, or what a :class:`SamplerVecEnv` was told
    :param check_nan: whether samplers refuse, as a failure of theirs, observations, rewards and log-probabilities that
        are not finite, and an update whose loss or gradient is not finite is an error before it changes any weight
    :param kwargs: the algorithm's other arguments
    :raises ValueError: if one of these arguments is wrong
    :raises SamplerError: if an environment cannot be built in a sampler
    :raises MemoryError: if there is too little memory for the queues
    """

    #: the modes that the algorithm can learn in; the first one is the default
    supported_modes: ClassVar[tuple[str, ...]] = ("sync",)
    #: whether NumPy runs the algorithm's policies of multilayer perceptrons, so that samplers do without torch
    has_numpy_actor: ClassVar[bool] = True
    #: the algorithm's discount factor
    gamma: float

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: EnvSource,
        *args: Any,
        n_samplers: int | None = None,
        envs_per_sampler: int = 1,
        mode: str | None = None,
        max_policy_lag: int | None = None,
        actor: str = "auto",
        backend: str | Backend = "process",
        normalize: NormalizeArgument = False,
        info_keys: InfoKeys = "auto",
        on_failure: str | None = None,
        max_restarts: int | None = None,
        step_timeout: float | None = None,
        close_timeout: float | None = None,
        samplers_give_way: bool | None = None,
        check_nan: bool = False,
        **kwargs: Any,
    ) -> None:
        check_model(self)
        self.mode = self.supported_modes[0] if mode is None else mode
        # Algorithms of SB3 have networks that are called actor.
        self.max_policy_lag, self.sampler_actor, self.info_keys = max_policy_lag, actor, info_keys
        self.check_nan = check_nan
        self._check_choices()
        supervision = supervision_of(on_failure, max_restarts, step_timeout, close_timeout, samplers_give_way)
        #: number of completed ``train()`` calls; of an off-policy algorithm, of rollouts
        self.policy_version = 0
        self._collector: Collector | None = None
        self._collector_key: tuple | None = None
        self._samplers_seed: int | None = None
        self._n_collectors = 0
        self._policy_settings: PolicySettings | None = None
        self._is_learning = False
        self._infos = select_infos(info_keys, callbacks_may_look=False)
        self._learn_seconds: float | None = None
        may_be_numpy = self.has_numpy_actor and actor != "torch"
        numpy_is_likely = may_be_numpy and policy == "MlpPolicy" and not kwargs.get("use_sde")
        preload = () if numpy_is_likely else ("torch", "stable_baselines3")
        with in_samplers(env, n_samplers, envs_per_sampler, backend, preload, supervision) as samplers:
            super().__init__(policy, normalized(samplers, normalize), *args, **kwargs)
            wrapped_samplers(self.env)
        self.is_normalized = self._vec_normalize_env is not None
        if self._vec_normalize_env is not None and takes_gamma_of_algorithm(normalize):
            self._vec_normalize_env.gamma = self.gamma

    def _check_choices(self) -> None:
        check_mode(self.mode, self.max_policy_lag, type(self).__name__, self.supported_modes)
        check_actor(self.sampler_actor)
        checked_info_keys(self.info_keys)

    def _setup_model(self) -> None:
        self._check_choices()
        with memory_advice():
            super()._setup_model()  # type: ignore[safe-super]
        self._check_memory()

    def _check_memory(self) -> None:
        """
        Check that there is memory for the queues, long before they are made.

        :raises MemoryError: if too little is left
        """
        raise NotImplementedError

    def _n_steps_per_rollout(self) -> int:
        """:return: steps of each environment in a rollout"""
        raise NotImplementedError

    def _collector_settings(self) -> tuple:
        """:return: what else a collector depends on, so that it has to be made anew when that changes"""
        return ()

    def _set_up_collector(self, env: WrappedSamplers, n_steps: int) -> Collector:
        """
        :param env: the samplers, and what is around them
        :param n_steps: steps of each environment in a rollout
        :return: a collector that works in the algorithm's mode, with the samplers ready for it
        """
        raise NotImplementedError

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed everything that SB3 seeds, and the samplers' random streams.

        :param seed: the seed; ``None`` changes nothing, as in SB3
        """
        super().set_random_seed(seed)
        if seed is not None:
            self._samplers_seed, self._collector_key, self._n_collectors = seed, None, 0

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        with warnings.catch_warnings():
            # EvalCallback warns of any difference in type. Where the environments live is none that matters.
            same = "Training and eval env are not of the same type.*SamplerVecEnv.* != .*(DummyVecEnv|SubprocVecEnv)"
            warnings.filterwarnings("ignore", message=same)
            initialised = super()._init_callback(callback, progress_bar)
        may_look = wants_all_infos(initialised) or may_look_at_infos(self)
        self._infos = select_infos(self.info_keys, callbacks_may_look=may_look)
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        self._note_policy_settings()
        collector = self._up_to_date_collector(self._n_steps_per_rollout())
        if collector is not None:
            collector.start_run()
        self._prepare_updates()
        # Preparing the samplers is not part of what time/fps measures.
        self.start_time = time_ns()
        return result

    def _note_policy_settings(self) -> None:
        """Samplers hold a copy of the policy, which is made anew if more than its weights has changed."""
        settings = policy_settings(self.policy)
        if settings != self._policy_settings:
            self._policy_settings, self._collector_key = settings, None

    def _prepare_updates(self) -> None:
        """Called when ``learn()`` begins and samplers are ready."""

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """
        As in SB3. Samplers collect for as long as it runs.

        :param args: SB3's arguments
        :param kwargs: SB3's arguments
        :return: the algorithm itself
        :raises RuntimeError: if the model has no environments
        :raises SamplerError: if a sampler failed or died and is not replaced, or the samplers are closed
        :raises NonFiniteError: with ``check_nan``, if a loss or a gradient is not finite
        :raises SystemExit: if the process is told to terminate (SIGTERM), unless the program handles that itself
        """
        if self.env is None:
            raise RuntimeError("The model has no environments to learn in. Give it some with set_env().")
        self._is_learning = True
        try:
            with termination_as_exit():
                return super().learn(*args, **kwargs)  # type: ignore[safe-super]
        finally:
            self._is_learning = False
            if self._collector is not None:
                self._collector.interrupt()
            if self.num_timesteps < self._total_timesteps:
                self._abandon_updates()

    def _abandon_updates(self) -> None:
        """Called when ``learn()`` ends before it is through."""

    def _record_collection(self) -> None:
        """Have the next log tell how the samplers are doing."""
        if self._collector is not None:
            for name, value in self._collector.statistics.figures().items():
                self.logger.record(name, value)
            self.logger.record("async/restarts", self._collector.samplers.n_restarts)
            if self.mode == "free":
                self.logger.record("async/stale_steps", self._collector.statistics.n_stale_steps)
        if self._learn_seconds is not None:
            self.logger.record("time/learn_seconds", self._learn_seconds)

    def _up_to_date_collector(self, n_steps: int) -> Collector | None:
        """The collector, made anew if something that it depends on has changed; None if there are no samplers."""
        env = wrapped_samplers(self.env)
        if env is None:
            self._collector = self._collector_key = None
            return None
        surroundings = (env.samplers, env.layers, env.vec_normalize)
        key = (*surroundings, self.policy, n_steps, self.mode, self.max_policy_lag, self.sampler_actor)
        key += self._collector_settings()
        collector = self._collector
        is_ours = collector is not None and env.samplers.collector is collector and self._collector_key == key
        if collector is None or not is_ours or not collector.has_room_for(self._infos):
            self._check_choices()
            collector = self._set_up_collector(env, n_steps)
            self._collector, self._collector_key = collector, key
            self._n_collectors += 1
            env.samplers.collector = collector
            collector.start_run()
        collector.infos = self._infos
        return collector
