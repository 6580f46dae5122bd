"""The mixin: SB3's algorithm, fed from the experience queue."""

import math
import warnings
from contextlib import nullcontext
from time import perf_counter, time_ns
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.backends.supervision import supervision_of
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import check_mode
from sb3_walle.collection.rollout import Rollout
from sb3_walle.env_sources import EnvSource, in_samplers
from sb3_walle.learners.finite import finite_updates
from sb3_walle.on_policy.advantages import compute_advantages
from sb3_walle.on_policy.buffer import add_rows, keep_fractions
from sb3_walle.on_policy.compatibility import check_algorithm
from sb3_walle.on_policy.infos import wants_all_infos
from sb3_walle.on_policy.persistence import Persistence
from sb3_walle.on_policy.replay import StepReplay
from sb3_walle.on_policy.setup import check_memory, memory_advice, policy_weights, set_up_collector
from sb3_walle.on_policy.threads import torch_threads_beside
from sb3_walle.on_policy.values import (
    correct_cut_off,
    last_values,
    learner_episode_starts,
    learner_rewards,
    rollout_values,
)
from sb3_walle.on_policy.wrapper_state import WrapperState
from sb3_walle.samplers.actors.choice import check_actor, choose_actor
from sb3_walle.samplers.infos import InfoKeys, checked_info_keys, select_infos
from sb3_walle.termination import termination_as_exit
from sb3_walle.wrappers import NormalizeArgument, normalized, takes_gamma_of_algorithm, wrapped_samplers


class AsyncOnPolicyMixin(Persistence):
    """
    Put before an on-policy algorithm of SB3, makes it collect experience with samplers.

    Samplers pull the policy, step their environments and send chunks of experience; the algorithm takes the chunks,
    fills its rollout buffer with them and trains as ever. All arguments of the algorithm keep their meaning and order;
    ``n_envs`` is ``n_samplers * envs_per_sampler``.

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
        action is learned from, by default 1
    :param actor: what runs the policy in samplers: ``"torch"``, ``"numpy"`` (MLP policies, several times faster), or
        ``"auto"`` for NumPy wherever it computes the same distribution
    :param backend: where samplers live: ``"process"``, or ``"inline"`` for this process
    :param normalize: whether to put a ``VecNormalize`` around the samplers, or its arguments; its ``gamma`` is the
        algorithm's unless it is given. As in SB3, its statistics are not part of the saved model:
        ``model.get_vec_normalize_env().save(path)``
    :param info_keys: what callbacks find in ``locals["infos"]`` besides what ends an episode: ``"all"``; the keys that
        they need, if any, which is cheaper; or ``"auto"``: all if there is a callback that is not SB3's own, else none
    :param on_failure: what happens when a sampler dies, or an environment raises an exception while it collects:
        ``"restart"`` (the default) warns and starts another sampler in its place, ``"raise"`` ends ``learn()``
    :param max_restarts: restarts within ten minutes, of all samplers together, after which the next death ends
        ``learn()`` all the same; by default 10, or one for each sampler if there are more
    :param step_timeout: longest time in seconds that a step or a reset of one environment may take before its sampler
        is killed and counts as dead; by default any time
    :param check_nan: whether samplers refuse, as a failure of theirs, observations, rewards and log-probabilities that
        are not finite, and an update whose loss or gradient is not finite is an error before it changes any weight
    :param kwargs: the algorithm's other arguments
    :raises ValueError: if one of these arguments is wrong
    :raises SamplerError: if an environment cannot be built in a sampler
    :raises MemoryError: if there is too little memory for the queues
    """

    #: the modes that the algorithm can learn in; the first one is the default. Any but "sync" have a policy lag, for
    #: which :meth:`_correct_for_policy_lag` has to be overridden
    supported_modes: ClassVar[tuple[str, ...]] = ("sync",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_algorithm(cls, AsyncOnPolicyMixin)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: EnvSource,
        *args: Any,
        n_samplers: int | None = None,
        envs_per_sampler: int = 1,
        mode: str | None = None,
        max_policy_lag: int | None = None,
        actor: str = "auto",
        backend: str = "process",
        normalize: NormalizeArgument = False,
        info_keys: InfoKeys = "auto",
        on_failure: str | None = None,
        max_restarts: int | None = None,
        step_timeout: float | None = None,
        check_nan: bool = False,
        **kwargs: Any,
    ) -> None:
        self.mode = self.supported_modes[0] if mode is None else mode
        self.max_policy_lag, self.actor, self.info_keys = max_policy_lag, actor, info_keys
        self.check_nan = check_nan
        self._check_choices()
        supervision = supervision_of(on_failure, max_restarts, step_timeout)
        #: number of completed ``train()`` calls
        self.policy_version = 0
        self._collector: Collector | None = None
        self._collector_key: tuple | None = None
        self._samplers_seed: int | None = None
        self._n_collectors = 0
        self._is_learning = False
        self._infos = select_infos(info_keys, callbacks_may_look=False)
        #: largest policy lag in the rollout buffer
        self._rollout_policy_lag = 0
        self._learn_seconds: float | None = None
        numpy_is_likely = policy == "MlpPolicy" and actor != "torch" and not kwargs.get("use_sde")
        preload = () if numpy_is_likely else ("torch", "stable_baselines3")
        with in_samplers(env, n_samplers, envs_per_sampler, backend, preload, supervision) as samplers:
            super().__init__(policy, normalized(samplers, normalize), *args, **kwargs)  # type: ignore[arg-type]
            wrapped_samplers(self.env)
        self.is_normalized = self._vec_normalize_env is not None
        if self._vec_normalize_env is not None and takes_gamma_of_algorithm(normalize):
            self._vec_normalize_env.gamma = self.gamma

    def _check_choices(self) -> None:
        check_mode(self.mode, self.max_policy_lag, type(self).__name__, self.supported_modes)
        check_actor(self.actor)
        checked_info_keys(self.info_keys)

    def _setup_model(self) -> None:
        self._check_choices()
        with memory_advice():
            super()._setup_model()
        check_memory(self, choose_actor(self.actor, self.policy))

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
        self._infos = select_infos(self.info_keys, callbacks_may_look=wants_all_infos(initialised))
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        collector = self._up_to_date_collector(self.n_steps)
        if collector is not None:
            collector.start_run()
        self._plan_updates(self._n_rollouts_left())
        # Preparing the samplers is not part of what time/fps measures.
        self.start_time = time_ns()
        return result

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
                return super().learn(*args, **kwargs)
        finally:
            self._is_learning = False
            if self._collector is not None:
                self._collector.interrupt()

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Fill the rollout buffer from the experience queue.

        :param env: the training environment
        :param callback: called at every step of all environments, and at the rollout's beginning and end
        :param rollout_buffer: the buffer to fill
        :param n_rollout_steps: steps of each environment
        :return: False if the callback stopped the training
        """
        collector = self._up_to_date_collector(n_rollout_steps)
        if collector is None:
            self._rollout_policy_lag = 0
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        wrapped = wrapped_samplers(env)
        assert wrapped is not None
        self.policy.set_training_mode(False)
        keep_fractions(rollout_buffer, wrapped.observation_space)
        rollout_buffer.reset()
        callback.on_rollout_start()
        replay = StepReplay(self, env, callback, rollout_buffer, n_rollout_steps, WrapperState(wrapped))
        weights = policy_weights(self.policy, collector.weight_names)
        rollout: Rollout | None = None
        for rollout, rows in collector.collect(self.policy_version, weights, self._n_rollouts_left()):
            if rollout.random_state is not None:
                th.set_rng_state(th.from_numpy(rollout.random_state))
            with torch_threads_beside(collector.n_samplers_at_work):
                values = rollout_values(self.policy, rollout, rows)
            if not replay.replay(rollout, rows, values):
                return False
            correct_cut_off(self.policy, rollout, rows.start, self.gamma, rollout_buffer)
            rewards = learner_rewards(self.policy, rollout, rows, self.gamma)
            add_rows(rollout_buffer, rollout, rows, rewards, learner_episode_starts(rollout, rows), values)
        assert rollout is not None
        self._rollout_policy_lag = collector.statistics.policy_lag_max
        self._finish(rollout, rollout_buffer, callback)
        if self._collector is not collector:
            # A callback has set other environments.
            collector.interrupt()
        return True

    def train(self) -> None:
        """Update the policy from the rollout buffer, as in SB3."""
        n_samplers_at_work = 0 if self._collector is None else self._collector.n_samplers_at_work
        started = perf_counter()
        with torch_threads_beside(n_samplers_at_work):
            if self._rollout_policy_lag > 0:
                self._correct_for_policy_lag()
            self._update()
        self.policy_version += 1
        self._learn_seconds = perf_counter() - started

    def _update(self) -> None:
        """SB3's ``train()``. An algorithm that has a faster update of its own makes it here."""
        with finite_updates(self.policy, self.policy_version + 1) if self.check_nan else nullcontext():
            super().train()

    def _plan_updates(self, n_updates: int) -> None:
        """
        Called when ``learn()`` begins, and samplers are at work already.

        :param n_updates: number of updates that are going to be made
        """

    def _correct_for_policy_lag(self) -> None:
        """
        Prepare the rollout buffer, which holds what older policies did, for the update. An algorithm that supports
        modes with a policy lag does here what its update does not do by itself.
        """

    def dump_logs(self, iteration: int = 0) -> None:
        """
        Write what SB3 logs, and how the samplers are doing.

        :param iteration: number of the iteration
        """
        if self._collector is not None:
            for name, value in self._collector.statistics.figures().items():
                self.logger.record(name, value)
            self.logger.record("async/restarts", self._collector.samplers.n_restarts)
            if self.mode == "free":
                self.logger.record("async/stale_steps", self._collector.statistics.n_stale_steps)
        if self._learn_seconds is not None:
            self.logger.record("time/learn_seconds", self._learn_seconds)
        super().dump_logs(iteration)

    def _finish(self, rollout: Rollout, rollout_buffer: RolloutBuffer, callback: BaseCallback) -> None:
        """The end of SB3's ``collect_rollouts()``."""
        values, dones = last_values(self.policy, rollout), rollout.dones[-1]
        compute_advantages(rollout_buffer, values, dones)
        callback.update_locals({"values": values, "dones": dones})
        callback.on_rollout_end()

    def _n_rollouts_left(self) -> int:
        """How many rollouts ``learn()`` is going to collect, the current one included."""
        return math.ceil((self._total_timesteps - self.num_timesteps) / (self.n_steps * self.n_envs))

    def _up_to_date_collector(self, n_steps: int) -> Collector | None:
        """The collector, made anew if something that it depends on has changed; None if there are no samplers."""
        env = wrapped_samplers(self.env)
        if env is None:
            self._collector = self._collector_key = None
            return None
        surroundings = (env.samplers, env.layers, env.vec_normalize)
        key = (*surroundings, self.policy, n_steps, self.mode, self.max_policy_lag, self.actor)
        collector = self._collector
        is_ours = collector is not None and env.samplers.collector is collector and self._collector_key == key
        if collector is None or not is_ours or not collector.has_room_for(self._infos):
            self._check_choices()
            collector = set_up_collector(self, env, n_steps, self._samplers_seed)
            self._collector, self._collector_key = collector, key
            self._n_collectors += 1
            env.samplers.collector = collector
            collector.start_run()
        collector.infos = self._infos
        return collector
