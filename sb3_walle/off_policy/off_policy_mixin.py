"""The mixin: SB3's off-policy algorithm, fed from the experience queue."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.async_mixin import AsyncMixin
from sb3_walle.algorithm.collection_request import CollectionRequest, CollectionSpec
from sb3_walle.algorithm.compatibility import check_algorithm
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import MODES, REALTIME
from sb3_walle.collection.realtime import RealtimeCollector
from sb3_walle.envs.env_sources import EnvSource
from sb3_walle.envs.wrappers import wrapped_samplers
from sb3_walle.off_policy.cuts import can_mark_cuts
from sb3_walle.off_policy.exploration_plan import check_ladder, check_rungs, planned_exploration
from sb3_walle.off_policy.hindsight import close_rewards, compute_rewards_here
from sb3_walle.off_policy.hook_cache import HookCache
from sb3_walle.off_policy.off_policy_spec import off_policy_spec, published_weights
from sb3_walle.off_policy.plants import ARGUMENTS, check_callbacks, check_plants, check_realtime_arguments
from sb3_walle.off_policy.realtime_rollout import take_steps
from sb3_walle.off_policy.recorded_steps import RecordedStep, RecordedSteps
from sb3_walle.off_policy.replay_buffer import (
    buffer_of,
    check_n_envs,
    check_weights,
    new_replay_buffer,
    wants_all_infos,
)
from sb3_walle.off_policy.replay_ratio import ReplayRatio
from sb3_walle.off_policy.replay_storage import ReplayStorage
from sb3_walle.off_policy.training_debt import TrainingDebt
from sb3_walle.realtime.fallback import FallbackAction
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.realtime.statistics import RealtimeStatistics
from sb3_walle.samplers.actors.random_streams import set_global_state
from sb3_walle.samplers.infos import select_infos
from sb3_walle.sb3_private import n_updates, set_last_observations, timesteps_to_learn
from sb3_walle.updates.finite import finite_steps

# Steps of an episode for which exploration is planned, where a rollout is made of episodes.
N_STEPS_OF_EPISODES = 4096

# Stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = OffPolicyAlgorithm
else:
    _Base = object


class AsyncOffPolicyMixin(AsyncMixin, _Base):
    """
    Put before an off-policy algorithm of SB3, makes it collect experience with samplers.

    Samplers pull the weights that choose actions, explore as the algorithm does, and send what they experience; SB3's
    own loop goes through these steps as if it made them, fills the replay buffer and trains. So ``train_freq`` and
    ``gradient_steps`` mean what they mean in SB3, in every mode: the algorithm makes the same number of gradient steps
    for each step of the environments, and samplers are ahead of it by at most what the experience queue holds.

    A rollout is what is collected between two trainings, ``train_freq`` steps of each environment; the policy's version
    is the number of rollouts. All arguments of the algorithm keep their meaning and order; those for samplers are
    :class:`~sb3_walle.algorithm.async_mixin.AsyncMixin`'s, but in mode ``"free"`` the policy lag has no bound of its
    own unless ``max_policy_lag`` is given.

    In mode ``"realtime"`` environments are plants, which never wait: a sampler acts on each at a fixed rate, or at the
    plant's own, and the learner trains on what has been made, as much as ``train_freq`` and ``gradient_steps`` ask for
    or as much as it can.

    .. code-block:: python

        class AsyncMySAC(AsyncOffPolicyMixin, MySAC):
            pass

    :param noise_ladder: ``"apex"`` to have every sampler explore to another degree, which stays the same (Horgan et
        al., 2018, https://arxiv.org/abs/1803.00933): epsilon-greedy algorithms with probabilities from 0.4 down to
        0.4 ** 8, others with normal noise of standard deviations from 0.05 to 0.8; instead of the algorithm's own
        schedule or action noise
    :param control_hz: in mode ``"realtime"``, actions a second; ``None`` if environments keep time themselves
    :param fallback_action: in mode ``"realtime"``, where it is required, what a plant gets when no fresh action comes
        any more: an action, ``"hold"`` for the last one once more, or a function from an observation to an action
    :param max_replay_ratio: in mode ``"realtime"``, most gradient steps for each step of an environment, whatever
        ``train_freq`` and ``gradient_steps`` ask for
    """

    supported_modes: ClassVar[tuple[str, ...]] = MODES
    acts_in_real_time: ClassVar[bool] = True
    #: whether it makes sense for the algorithm that samplers explore to different degrees: not where the policy itself
    #: learns how much to explore
    has_noise_ladder: ClassVar[bool] = False
    #: whether ``train()`` weights the losses of a :class:`~sb3_walle.PrioritizedReplayBuffer` and returns errors to it
    learns_from_weights: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_algorithm(cls, AsyncOffPolicyMixin, OffPolicyAlgorithm, "AsyncSAC(AsyncOffPolicyMixin, SAC)")

    def __init__(
        self,
        *args: Any,
        noise_ladder: str | None = None,
        control_hz: float | None = None,
        fallback_action: FallbackAction = None,
        max_replay_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.noise_ladder = noise_ladder
        self.control_hz, self.fallback_action = control_hz, fallback_action
        self.max_replay_ratio = max_replay_ratio
        #: in mode ``"realtime"``, the training that is due
        self._debt: TrainingDebt | None = None
        self._storage = ReplayStorage()
        self._replay_ratio = ReplayRatio(0)
        self._hooks = HookCache()
        #: what SB3's loop steps instead of the environments; ``None`` without a collector
        self._recorded: RecordedSteps | None = None
        self._random_state: np.ndarray | None = None
        self._n_trainings = 0
        super().__init__(*args, **kwargs)

    def _check_choices(self) -> None:
        super()._check_choices()
        check_realtime_arguments(self.mode == REALTIME, {name: getattr(self, name) for name in ARGUMENTS})
        check_ladder(self.noise_ladder, type(self).__name__, self.has_noise_ladder)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_plants()
        if self.collects_episodes and self.n_envs > 1:
            raise ValueError(
                f"You must use only one env when doing episodic training: train_freq={self.train_freq} was given with "
                f"{self.n_envs} environments. Count in steps instead, as in train_freq=(1, 'step')."
            )
        check_rungs(self.noise_ladder, self.action_noise, wrapped_samplers(self.env))
        check_weights(buffer_of(self), type(self).__name__, self.learns_from_weights)
        self._compute_rewards_here()

    def _check_plants(self) -> None:
        if self.mode == REALTIME and self.env is not None:
            wrapped = wrapped_samplers(self.env)
            check_plants(None if wrapped is None else wrapped.vec_env, self.fallback_action)

    def _realtime_settings(self) -> RealtimeSettings | None:
        if self.mode != REALTIME:
            return None
        return RealtimeSettings(self.fallback_action, None if self.control_hz is None else float(self.control_hz))

    @property
    def collects_episodes(self) -> bool:
        """Whether ``train_freq`` counts episodes."""
        return self._frequency().unit == TrainFrequencyUnit.EPISODE

    def _n_steps_per_rollout(self) -> int:
        # Plants do not wait until a rollout is complete.
        return 1 if self.mode == REALTIME else self._n_steps_per_training()

    def _n_steps_per_training(self) -> int:
        # The length of an episode is not known beforehand. Its steps are asked for one by one.
        return 1 if self.collects_episodes else self._frequency().frequency

    def _samples_per_step(self) -> float:
        n_steps = self._n_steps_per_training() * self.n_envs
        # As many as steps, if negative.
        return self.batch_size * (self.gradient_steps / n_steps if self.gradient_steps >= 0 else 1)

    def _frequency(self) -> TrainFreq:
        # SB3 has converted what the user gave.
        return cast(TrainFreq, self.train_freq)

    # Environments and the replay buffer

    def _check_n_envs(self, n_envs: int) -> None:
        buffer = buffer_of(self)
        if buffer is not None and (buffer.full or buffer.pos > 0):
            check_n_envs(buffer, n_envs)

    def _renew_buffer(self) -> None:
        self._take_buffer(new_replay_buffer(self))

    def _take_buffer(self, buffer: ReplayBuffer | None) -> None:
        self.replay_buffer = buffer
        self._storage.forget()
        self._compute_rewards_here()

    def _compute_rewards_here(self) -> None:
        compute_rewards_here(buffer_of(self), self.env, are_plants=self.mode == REALTIME)

    def set_env(self, env: EnvSource, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        self._compute_rewards_here()

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """
        As in SB3.

        :raises ValueError: if it holds the experience of another number of environments
        """
        before = buffer_of(self)
        super().load_replay_buffer(path, truncate_last_traj)
        loaded = buffer_of(self)
        if loaded is not None:
            try:
                check_n_envs(loaded, self.n_envs)
            except ValueError:
                self.replay_buffer = before
                raise
        self._take_buffer(loaded)

    @classmethod
    def load(cls, path: Any, env: EnvSource = None, *args: Any, **kwargs: Any) -> Any:
        """
        As :meth:`~sb3_walle.algorithm.async_mixin.AsyncMixin.load`. In another mode than ``"realtime"``, what was saved
        for that one is left out.
        """
        if kwargs.get("mode", REALTIME) != REALTIME:
            kwargs = {**dict.fromkeys(ARGUMENTS), **kwargs}
        return super().load(path, env, *args, **kwargs)

    def __exit__(self, *exception: object) -> None:
        close_rewards(buffer_of(self))
        super().__exit__(*exception)

    # Collecting

    def _collection_spec(self, request: CollectionRequest, for_size: bool = False) -> CollectionSpec:
        plan = {} if for_size else self._exploration(n_steps_ahead=0)
        return off_policy_spec(self, request, self.noise_ladder, plan)

    def _make_collector(self, request: CollectionRequest) -> Collector:
        self._check_plants()
        self._recorded = RecordedSteps(cast(VecEnv, self.env))
        return super()._make_collector(request)

    def _exploration(self, n_steps_ahead: int) -> Mapping[str, np.ndarray]:
        """What samplers are told of how to explore after a number of further steps of each environment."""
        # With a policy lag, the first weights are there for more than one rollout.
        n_steps = N_STEPS_OF_EPISODES if self.collects_episodes else 2 * self._n_steps_per_rollout()
        return planned_exploration(self, self._n_trainings, n_steps_ahead, n_steps)

    def _collector_settings(self) -> tuple:
        hooks = self._hooks.of(self.policy)
        realtime = (self.control_hz, id(self.fallback_action))
        return (self.action_noise, self.noise_ladder, can_mark_cuts(buffer_of(self)), hooks, realtime)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        initialised = super()._init_callback(callback, progress_bar)
        if self.mode == REALTIME:
            check_callbacks(initialised, cast(VecEnv, self.env))
        if wants_all_infos(buffer_of(self)):
            self._experience.infos = select_infos(self.info_keys, callbacks_may_look=True)
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._n_trainings += 1
        self._hooks.look_again()
        result = super()._setup_learn(*args, **kwargs)
        self._replay_ratio = ReplayRatio(self.num_timesteps)
        self._debt = None
        if self.mode == REALTIME:
            self._debt = TrainingDebt(self._frequency(), self.gradient_steps, self.n_envs, self.max_replay_ratio)
        # Once more: callbacks may change the policy when training starts.
        self._hooks.look_again()
        return result

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """As in SB3, but the steps come from the experience queue: samplers have made them, exploration included."""
        arguments = (callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval)
        collector = self._up_to_date_collector(self._n_steps_per_rollout())
        if self._debt is None or self.num_timesteps <= self.learning_starts:
            self._replay_ratio.begin_rollout(self.num_timesteps)
        wrapped, recorded = wrapped_samplers(env), self._recorded
        if collector is None or wrapped is None or recorded is None:
            return super().collect_rollouts(env, *arguments)
        # Now: where there is gSDE, SB3 draws the noise next that samplers have to draw.
        weights = published_weights(self, collector.weight_names, self._exploration(collector.n_steps_ahead))
        sb3_loop = super().collect_rollouts

        def loop(train_freq: TrainFreq) -> RolloutReturn:
            with recorded.handing_out(self._recorded_steps(collector, weights), wrapped):
                return sb3_loop(recorded, callback, train_freq, *arguments[2:])

        if isinstance(collector, RealtimeCollector) and self._debt is not None:
            result = take_steps(self, self.policy_version, weights, collector, self._debt, loop)
        else:
            result = loop(train_freq)
        if self._random_state is not None:
            # Not before: where there is gSDE, SB3's loop has drawn noise that the sampler has drawn, too.
            set_global_state(self._random_state, self.action_space)
        self.policy_version += 1
        if self._experience.collector is not collector:
            # A callback has set other environments.
            collector.interrupt()
        return result

    def _recorded_steps(self, collector: Collector, weights: dict[str, np.ndarray]) -> Iterator[RecordedStep]:
        """The steps of a rollout, and those after it as long as SB3's loop asks for them."""
        while True:
            for rollout, rows in collector.collect(self.policy_version, weights, self._n_rollouts_left()):
                self._random_state = rollout.random_state
                for index in rows:
                    yield RecordedStep(rollout, index)

    def _n_rollouts_left(self) -> int:
        """How many rollouts ``learn()`` is going to collect, the current one included."""
        n_left = timesteps_to_learn(self) - self.num_timesteps
        return max(math.ceil(n_left / (self._n_steps_per_rollout() * self.n_envs)), 1)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        recorded = self._recorded
        if recorded is None or not recorded.is_handing_out:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        actions = recorded.next_actions()
        set_last_observations(self, recorded.current.observations)
        return actions

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        recorded, sb3_store = self._recorded, super()._store_transition
        if recorded is None or not recorded.is_handing_out:
            sb3_store(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            return

        def store(new_obs: Any, reward: np.ndarray, infos: list[dict[str, Any]]) -> None:
            sb3_store(replay_buffer, buffer_action, new_obs, reward, dones, infos)

        self._storage.store(self, recorded.current, replay_buffer, infos, store)

    # Training

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the policy from the replay buffer, as in SB3."""
        debt = self._debt if self._is_learning else None
        if debt is not None and not debt.next_training:
            # SB3's loop asks for a training after each rollout.
            return
        with self._training():
            self._update(gradient_steps, batch_size)
        if debt is not None:
            debt.pay()
        self._replay_ratio.add(gradient_steps, self.num_timesteps)

    def _update(self, gradient_steps: int, batch_size: int) -> None:
        updater = self._get_updater()
        if updater is None or batch_size != self.batch_size:
            self._update_eagerly(gradient_steps, batch_size)
            return
        updater.update.expect(gradient_steps)
        updater.train(self.policy_version, lambda: self._update_eagerly(gradient_steps, batch_size))
        self.logger.record("async/compiled_update", int(updater.is_compiled))

    def _update_eagerly(self, gradient_steps: int, batch_size: int) -> None:
        with finite_steps(self.policy, n_updates(self) + 1) if self.check_nan else nullcontext():
            self._train_as_sb3(gradient_steps, batch_size)

    def _train_as_sb3(self, gradient_steps: int, batch_size: int) -> None:
        super().train(gradient_steps, batch_size)

    def _prepare_updates(self) -> None:
        updater = self._get_updater()
        if updater is None or self.gradient_steps == 0:
            return
        n_left = timesteps_to_learn(self) - max(self.num_timesteps, self.learning_starts)
        per_rollout = self._n_steps_per_training() * self.n_envs
        updater.update.expect(self.gradient_steps if self.gradient_steps > 0 else per_rollout)
        updater.plan(max(0, n_left) // per_rollout)

    def dump_logs(self) -> None:
        """Write what SB3 logs, and how the samplers are doing."""
        self._record_collection()
        if self.realtime_statistics is not None:
            for name, value in self.realtime_statistics.figures().items():
                self.logger.record(name, value)
        if self._replay_ratio.value is not None:
            self.logger.record("async/replay_ratio", self._replay_ratio.value)
        super().dump_logs()

    @property
    def realtime_statistics(self) -> RealtimeStatistics | None:
        """
        When the steps were made that have arrived since ``learn()`` began, the histograms as of the last log; see
        :meth:`~sb3_walle.realtime.statistics.RealtimeStatistics.settle`. ``None`` in other modes than ``"realtime"``.
        """
        collector = self._experience.collector
        return collector.realtime_statistics if isinstance(collector, RealtimeCollector) else None

    def _excluded_save_params(self) -> list[str]:
        own = ["_debt", "_storage", "_replay_ratio", "_hooks", "_recorded", "_random_state", "_n_trainings"]
        return [*super()._excluded_save_params(), *own]
