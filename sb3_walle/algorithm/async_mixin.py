"""The mixin that all asynchronous algorithms have in common: environments in samplers, and a collector at work."""

import io
import pathlib
import warnings
from collections.abc import Iterable
from time import time_ns
from typing import Any, ClassVar, TypeVar

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_walle.algorithm.collection_request import CollectionRequest, CollectionSpec
from sb3_walle.algorithm.compatibility import check_model
from sb3_walle.algorithm.experience_source import ExperienceSource
from sb3_walle.algorithm.info_needs import may_look_at_infos, wants_all_infos
from sb3_walle.algorithm.learner_mixin import LearnerMixin
from sb3_walle.algorithm.loading import choices_to_load
from sb3_walle.algorithm.pickling import state_without_samplers
from sb3_walle.algorithm.several_learners import NLearners, check_n_learners
from sb3_walle.algorithm.workload import arguments_of, may_run_in_numpy, workload_of
from sb3_walle.algorithm.wrapper_state import leave_recording_to_samplers
from sb3_walle.backends.protocol import Backend
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import REALTIME, check_mode
from sb3_walle.collection.queues import REMEDY
from sb3_walle.envs.env_sources import LOCKSTEP, EnvSource, SamplerChoices, in_samplers, in_samplers_like
from sb3_walle.envs.wrappers import (
    NormalizeArgument,
    WrappedSamplers,
    normalized,
    takes_gamma_of_algorithm,
    wrapped_samplers,
)
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.actors.choice import check_actor
from sb3_walle.samplers.infos import InfoKeys, checked_info_keys, select_infos
from sb3_walle.saving import model_path, written_whole
from sb3_walle.sb3_private import set_last_observations, timesteps_to_learn, vec_normalize_of
from sb3_walle.termination import termination_as_exit
from sb3_walle.timeline.timeline import Timeline
from sb3_walle.updates.updater import check_learner
from sb3_walle.user_warning import warn_user

SelfAsync = TypeVar("SelfAsync", bound="AsyncMixin")


class AsyncMixin(LearnerMixin):
    """
    What :class:`~sb3_walle.AsyncOnPolicyMixin` and :class:`~sb3_walle.AsyncOffPolicyMixin` have in common. Those stand
    before an algorithm of SB3, whose arguments keep their meaning and order; ``n_envs`` is
    ``n_samplers * envs_per_sampler``.

    As in SB3, a model does not close its environments on its own; samplers end when nothing refers to them any more.
    The end of a ``with`` block closes the model's environments, also those that the user built.

    .. code-block:: python

        with AsyncPPO("MlpPolicy", "HalfCheetah-v4") as model:
            model.learn()

    A model can be pickled and copied. Its environments stay behind: give the copy some with :meth:`set_env`.

    :param policy: as in SB3
    :param env: an env id, a function that builds an environment or, from a number of environments, a vectorised one; an
        environment, a :class:`SamplerVecEnv`, or a ``DummyVecEnv`` whose environments can be moved; either of these in
        SB3's own wrappers, too. Any other ``VecEnv`` trains as in SB3, without samplers.
    :param args: the algorithm's other arguments
    :param n_samplers: number of samplers, by default one for each CPU that this process may use. ``"auto"``, the
        default with ``n_envs``: as many as collect fastest, which takes a second or two to measure; with a ``seed``,
        one for each CPU at most
    :param envs_per_sampler: environments of each sampler, stepped one after the other, or together where they are
        vectorised, with one forward pass for all; by default 1, or what follows from ``n_envs``
    :param n_envs: number of environments of all samplers together; by default ``n_samplers * envs_per_sampler``
    :param mode: ``"pipelined"``: samplers collect a rollout while the learner trains on the one before (policy lag 1,
        reproducible); ``"sync"``: they wait for each update (lag 0, SB3's own algorithm); ``"free"``: first come, first
        served, so that nothing waits for slow samplers; ``"realtime"``: off-policy algorithms act on plants that never
        wait. By default the first of the algorithm's ``supported_modes``.
    :param max_policy_lag: in mode ``"free"``, how many updates the policy that chose an action may be behind when the
        action is learned from, by default 1, and any number for off-policy algorithms, which learn from older ones
        anyway
    :param actor: what runs the policy in samplers: ``"torch"``, ``"numpy"`` (MLP policies, several times faster), or
        ``"auto"`` for NumPy wherever it computes the same distribution
    :param backend: as for :class:`SamplerVecEnv`
    :param normalize: whether to put a ``VecNormalize`` around the samplers, or its arguments; its ``gamma`` is the
        algorithm's unless it is given. As in SB3, its statistics are not part of the saved model:
        ``model.get_vec_normalize_env().save(path)``
    :param info_keys: what callbacks find in ``locals["infos"]`` where no episode ends: ``"all"``; the keys that they
        need, if any, which is cheaper; or ``"auto"``: all if there is a callback that is not SB3's own, or a
        subclass overrides a method that is given infos, else none
    :param on_failure: as for :class:`SamplerVecEnv`, as are the four below; ``"raise"``, the default in mode
        ``"realtime"``, ends ``learn()``. If ``env`` is a :class:`SamplerVecEnv`, that was told already
    :param max_restarts: as for :class:`SamplerVecEnv`
    :param step_timeout: as for :class:`SamplerVecEnv`
    :param close_timeout: as for :class:`SamplerVecEnv`
    :param samplers_give_way: as for :class:`SamplerVecEnv`
    :param observe_last_action: append so many of the last actions to each observation, for environments with a delay:
        see :class:`~sb3_walle.LastActionsObservation`
    :param learner: which update: ``"eager"``, SB3's own; ``"compiled"``, the same computation as machine code, several
        times faster, from the first update on, which waits for the compiler if need be; or ``"auto"``, which starts
        with SB3's update and switches to the compiled one once that saves time. The two agree within rounding. With a
        seed, the arguments alone determine the number of the first compiled update, so that the same seed always gives
        the same numbers. PPO, SAC, TD3, DDPG, DQN, TQC and QR-DQN have compiled updates, as has TRPO's critic
    :param n_learners: number of processes that compute the gradients of compiled updates, this one included. Each takes
        a share of the rows of every minibatch, with one thread; their sum is the gradient that one learner would
        compute, within rounding, and the same in every run. SB3 and callbacks stay in this process. ``"auto"``: more
        than one only where the first compiled updates turn out to be faster by 10 %; with a seed, arguments and number
        of CPUs alone decide
    :param check_nan: whether samplers refuse, as a failure of theirs, observations, rewards and log-probabilities that
        are not finite, and an update whose gradient is not finite is an error before it changes any weight
    :param kwargs: the algorithm's other arguments
    :raises ValueError: if one of these arguments is wrong
    :raises SamplerError: if an environment cannot be built in a sampler
    :raises MemoryError: if there is too little memory for the queues
    """

    #: the modes that the algorithm can learn in; the first one is the default
    supported_modes: ClassVar[tuple[str, ...]] = ("sync",)
    #: whether it can learn in mode ``"realtime"``, too
    acts_in_real_time: ClassVar[bool] = False
    #: bound of the policy lag in mode ``"free"`` where the user gives none
    _default_max_policy_lag: ClassVar[int | None] = None
    #: the algorithm's discount factor
    gamma: float

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: EnvSource,
        *args: Any,
        n_samplers: int | str | None = None,
        envs_per_sampler: int | None = None,
        n_envs: int | None = None,
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
        observe_last_action: int | None = None,
        learner: str = "auto",
        n_learners: NLearners = 1,
        check_nan: bool = False,
        **kwargs: Any,
    ) -> None:
        check_model(self)
        self.mode = self.supported_modes[0] if mode is None else mode
        # Algorithms of SB3 have networks that are called actor.
        self.max_policy_lag, self.sampler_actor, self.info_keys = max_policy_lag, actor, info_keys
        self.learner, self.n_learners, self.check_nan = learner, n_learners, check_nan
        self.observe_last_action = observe_last_action
        self._check_choices()
        choices = SamplerChoices(
            n_samplers,
            envs_per_sampler,
            n_envs,
            backend,
            on_failure,
            max_restarts,
            step_timeout,
            close_timeout,
            samplers_give_way,
            observe_last_action,
        )
        #: number of completed ``train()`` calls; of an off-policy algorithm, of rollouts
        self.policy_version = 0
        self._experience = ExperienceSource(select_infos(info_keys, callbacks_may_look=False))
        self._updater = self._learn_seconds = None
        self._is_learning = False
        if self.mode == REALTIME:
            choices = choices.for_plants(env)
        aliases = self.policy_aliases
        in_numpy = actor != "torch" and not kwargs.get("use_sde") and may_run_in_numpy(aliases, policy)
        preload = () if in_numpy else ("torch", "stable_baselines3")
        workload = workload_of(aliases, arguments_of(super().__init__, policy, env, *args, **kwargs), in_numpy)
        with in_samplers(env, choices, preload, workload) as samplers:
            super().__init__(policy, normalized(samplers, normalize), *args, **kwargs)
            wrapped_samplers(self.env)
        self._advise_on_cpus()
        vec_normalize = vec_normalize_of(self)
        #: whether the policy learns from normalised observations or rewards
        self.is_normalized = vec_normalize is not None
        if vec_normalize is not None and takes_gamma_of_algorithm(normalize):
            vec_normalize.gamma = self.gamma

    def _check_choices(self) -> None:
        supported = (*self.supported_modes, REALTIME) if self.acts_in_real_time else self.supported_modes
        check_mode(self.mode, self.max_policy_lag, type(self).__name__, supported)
        check_actor(self.sampler_actor)
        check_learner(self.learner)
        check_n_learners(self.n_learners)
        checked_info_keys(self.info_keys)

    def _setup_model(self) -> None:
        self._check_choices()
        try:
            super()._setup_model()  # type: ignore[safe-super]
        except MemoryError as error:
            # SB3's buffer is too large.
            raise MemoryError(f"{str(error).rstrip('.')}. {REMEDY}") from error
        env = wrapped_samplers(self.env)
        if env is not None:
            # Long before the queues are made. Callbacks, which are not known yet, can only ask for more.
            request = self._collection_request(env, self._n_steps_per_rollout())
            request.check_memory(self._collection_spec(request, for_size=True))
        self._check_updates()

    # What an algorithm's kind decides

    def _collection_spec(self, request: CollectionRequest, for_size: bool = False) -> CollectionSpec:
        """
        :param request: what the user asks of samplers
        :param for_size: whether the spec only has to tell how much memory is needed
        :return: what samplers collect
        """
        raise NotImplementedError

    def _collector_settings(self) -> tuple:
        """:return: what else a collector depends on, so that it has to be made anew when that changes"""
        return ()

    def _realtime_settings(self) -> RealtimeSettings | None:
        """:return: how samplers act in mode ``"realtime"``, ``None`` in other modes"""
        return None

    def _renew_buffer(self) -> None:
        """Make a buffer for the present number of environments."""
        raise NotImplementedError

    def _check_n_envs(self, n_envs: int) -> None:
        """:raises ValueError: if the algorithm cannot continue with another number of environments"""

    # Environments

    def set_env(self, env: EnvSource, force_reset: bool = True) -> None:
        """
        Continue with other environments. Between two calls of ``learn()`` there may be more of them than before, or
        fewer.

        :param env: as for the constructor; where it does not say how many environments there are, as many as before
        :param force_reset: as in SB3
        :raises ValueError: if their spaces are others; nothing has changed then
        :raises RuntimeError: if their number is another one during ``learn()``
        """
        env_before, n_envs_before = self.env, self.n_envs
        are_plants = self.mode == REALTIME
        with in_samplers_like(env_before, n_envs_before, env, self.observe_last_action, are_plants) as samplers:
            wrapped_samplers(samplers)
            if samplers is not None and samplers.num_envs != n_envs_before:
                if self._is_learning:
                    raise RuntimeError(
                        f"The number of environments cannot change during learn(): there are {n_envs_before}, and "
                        f"{samplers.num_envs} were given. Call set_env() between two calls of learn()."
                    )
                self._check_n_envs(samplers.num_envs)
                # SB3 insists on as many as before.
                self.n_envs = samplers.num_envs
            try:
                super().set_env(samplers, force_reset)  # type: ignore[arg-type]
            except BaseException:
                self.n_envs = n_envs_before
                raise
            if self.env is not env_before:
                self._experience.forget()
            if self.n_envs != n_envs_before:
                set_last_observations(self, None)
                self._renew_buffer()
        self._note_normalization()

    def _note_normalization(self) -> None:
        if self.env is None:
            return
        was_normalized, self.is_normalized = self.is_normalized, vec_normalize_of(self) is not None
        if was_normalized and not self.is_normalized:
            warn_user(
                "The policy has learned in environments inside of a VecNormalize, but these are in none. "
                "Wrap them with the statistics that belong to the policy: VecNormalize.load(path, SamplerVecEnv(...))."
            )

    def __enter__(self: SelfAsync) -> SelfAsync:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._updater is not None:
            self._updater.close()
        if self.env is not None:
            self.env.close()

    # Collecting

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed everything that SB3 seeds, and the samplers' random streams.

        :param seed: the seed; ``None`` changes nothing, as in SB3
        """
        super().set_random_seed(seed)
        if seed is not None:
            self._experience.reseed(seed)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        with warnings.catch_warnings():
            # EvalCallback warns of any difference in type. Where the environments live is none that matters.
            same = "Training and eval env are not of the same type.*SamplerVecEnv.* != .*(DummyVecEnv|SubprocVecEnv)"
            warnings.filterwarnings("ignore", message=same)
            initialised = super()._init_callback(callback, progress_bar)
        may_look = wants_all_infos(initialised) or may_look_at_infos(self)
        self._experience.infos = select_infos(self.info_keys, callbacks_may_look=may_look)
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        env = wrapped_samplers(self.env)
        if env is not None:
            leave_recording_to_samplers(env)
        self._experience.look_at_policy(self.policy)
        collector = self._up_to_date_collector(self._n_steps_per_rollout())
        if collector is not None:
            collector.start_run()
        self._prepare_updates()
        # Preparing the samplers is not part of what time/fps measures.
        self.start_time = time_ns()
        return result

    def learn(self: SelfAsync, total_timesteps: int = 1_000_000, *args: Any, **kwargs: Any) -> SelfAsync:
        """
        As in SB3. Samplers collect for as long as it runs.

        :param total_timesteps: number of environment steps, over all environments; the last rollout is completed
        :param args: SB3's further arguments: ``callback``, ``log_interval``, ``tb_log_name`` (by default the name of
            the class), ``reset_num_timesteps`` and ``progress_bar``
        :param kwargs: the same by name
        :return: the algorithm itself
        :raises RuntimeError: if the model has no environments
        :raises SamplerError: if a sampler failed or died and is not replaced, or the samplers are closed
        :raises NonFiniteError: with ``check_nan``, if a gradient is not finite
        :raises SystemExit: if the process is told to terminate (SIGTERM), unless the program handles that itself
        """
        if self.env is None:
            raise RuntimeError("The model has no environments to learn in. Give it some with set_env().")
        name_is_positional = len(args) >= 3  # after callback and log_interval
        if not name_is_positional:
            kwargs.setdefault("tb_log_name", type(self).__name__)
        self._is_learning = True
        try:
            with termination_as_exit():
                return super().learn(total_timesteps, *args, **kwargs)  # type: ignore[safe-super]
        finally:
            self._is_learning = False
            self._experience.timeline = None
            self._experience.interrupt()
            if self.num_timesteps < timesteps_to_learn(self) and self._updater is not None:
                self._updater.abandon()

    def _collection_request(self, env: WrappedSamplers, n_steps: int) -> CollectionRequest:
        experience = self._experience
        return CollectionRequest(
            env,
            n_steps,
            self.mode,
            self.max_policy_lag or self._default_max_policy_lag,
            self.sampler_actor,
            experience.infos,
            self.check_nan,
            experience.seed,
            experience.n_collectors,
            self._realtime_settings(),
        )

    def _up_to_date_collector(self, n_steps: int) -> Collector | None:
        """The collector, made anew if something that it depends on has changed; ``None`` if there are no samplers."""
        env = wrapped_samplers(self.env)
        if env is None:
            self._experience.forget()
            return None

        def make() -> Collector:
            self._check_choices()
            return self._make_collector(self._collection_request(env, n_steps))

        settings = (self.policy, n_steps, self.mode, self.max_policy_lag, self.sampler_actor)
        return self._experience.up_to_date(env, (*settings, *self._collector_settings()), make)

    def _make_collector(self, request: CollectionRequest) -> Collector:
        spec = self._collection_spec(request)
        if self.verbose >= 1:
            print(request.summary(spec))
        return request.make_collector(spec)

    def record_timeline(self, timeline: Timeline) -> None:
        """
        Record what learner and samplers do until ``learn()`` ends, see :class:`~sb3_walle.TimelineCallback`.

        :param timeline: keeps it
        """
        self._experience.timeline = timeline

    def _record_collection(self) -> None:
        """Have the next log tell how samplers and learner are doing."""
        self._experience.record(self.logger, self.mode)
        self._record_learner()

    # Saving, loading and copying

    @classmethod
    def load(
        cls, path: str | pathlib.Path | io.BufferedIOBase, env: EnvSource = None, *args: Any, **kwargs: Any
    ) -> Any:
        """
        Load a model that was saved by this algorithm, or by SB3's own.

        :param path: where it was saved
        :param env: environments to train in, as for the constructor
        :param args: SB3's other arguments
        :param kwargs: SB3's other arguments; the constructor's ``n_samplers``, ``envs_per_sampler``, ``backend``,
            ``on_failure``, ``max_restarts``, ``step_timeout``, ``close_timeout``, ``samplers_give_way`` and
            ``observe_last_action``; all further ones replace what was saved, e.g. ``mode="sync"``
        :return: the model
        """
        choices = choices_to_load(path, env, kwargs)
        with in_samplers(env, choices) as samplers:
            with warnings.catch_warnings():
                # SB3 constructs the model first, and so asks again for what was just found impossible.
                warnings.filterwarnings("ignore", message=LOCKSTEP)
                model = super().load(path, samplers, *args, **kwargs)
            wrapped_samplers(model.env)
        model._note_normalization()
        return model

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        As in SB3, but the file appears under its path only when it is complete. An exception or a kill before that
        leaves the model that was there.

        :param path: where to save, or a file to write to
        :param exclude: names of attributes that should be left out in addition to those that are by default
        :param include: names of attributes that should be saved though they are left out by default
        """
        if not isinstance(path, str | pathlib.Path):
            super().save(path, exclude, include)
            return
        with written_whole(model_path(path)) as file:
            super().save(file, exclude, include)

    def __getstate__(self) -> dict[str, Any]:
        return state_without_samplers(self)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_experience", "_updater", "_learn_seconds", "_is_learning"]
