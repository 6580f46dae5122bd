"""The mixin: SB3's off-policy algorithm, fed from the experience queue."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.compatibility import check_algorithm
from sb3_walle.algorithm.wrapper_state import WrapperState
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import MODES
from sb3_walle.off_policy.cuts import can_mark_cuts
from sb3_walle.off_policy.exploration import LADDERS
from sb3_walle.off_policy.recorded_steps import RecordedStep, RecordedSteps
from sb3_walle.off_policy.setup import check_memory, published_weights, set_up_collector
from sb3_walle.off_policy.storage import Continuity, wants_all_infos
from sb3_walle.off_policy.updates import Updates
from sb3_walle.samplers.actors.policy_hooks import HookIds
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.actors.random_streams import set_global_state
from sb3_walle.samplers.actors.torch_policy import travelling_hooks
from sb3_walle.samplers.infos import select_infos
from sb3_walle.updates.updater import Updater, check_learner
from sb3_walle.wrappers import WrappedSamplers, wrapped_samplers

# Rollouts may be single steps, and to look for hooks takes a tenth of one.
ROLLOUTS_PER_LOOK = 100
_LOOKS = ("_travelling_hooks", "_n_rollouts_until_look")

SelfAsyncOffPolicy = TypeVar("SelfAsyncOffPolicy", bound="AsyncOffPolicyMixin")


class AsyncOffPolicyMixin(Updates):
    """
    Put before an off-policy algorithm of SB3, makes it collect experience with samplers.

    Samplers pull the weights that choose actions, explore as the algorithm does, and send what they experience; SB3's
    own loop goes through these steps as if it made them, fills the replay buffer and trains. So ``train_freq`` and
    ``gradient_steps`` mean what they mean in SB3, in every mode: the algorithm makes the same number of gradient steps
    for each step of the environments, and samplers are ahead of it by at most what the experience queue holds.

    A rollout is what is collected between two trainings, ``train_freq`` steps of each environment; the policy's version
    is the number of rollouts. All arguments of the algorithm keep their meaning and order; those for samplers are
    :class:`~sb3_walle.algorithm.mixin.AsyncMixin`'s, but in mode ``"free"`` the policy lag has no bound of its own
    unless ``max_policy_lag`` is given.

    .. code-block:: python

        class AsyncTQC(AsyncOffPolicyMixin, TQC):
            pass

    :param args: arguments of :class:`~sb3_walle.algorithm.mixin.AsyncMixin` and of the algorithm
    :param noise_ladder: ``"apex"`` to have every sampler explore to another degree, which stays the same (Horgan et
        al., 2018, https://arxiv.org/abs/1803.00933): epsilon-greedy algorithms with probabilities from 0.4 down to
        0.4 ** 8, others with normal noise of standard deviations from 0.05 to 0.8; instead of the algorithm's own
        schedule or action noise
    :param learner: which update: ``"eager"``, SB3's own; ``"compiled"``, the same computation as machine code, from the
        first update on, which waits for the compiler if need be; or ``"auto"``, which goes on with the compiled update
        as soon as there is one, if there is enough left to do for that to pay; see :class:`~sb3_walle.AsyncPPO`. There
        are compiled updates of SAC, TD3, DDPG and DQN
    :param kwargs: further arguments of both
    :raises ValueError: if one of these arguments is wrong
    :raises SamplerError: if an environment cannot be built in a sampler
    :raises MemoryError: if there is too little memory for the queues
    """

    supported_modes: ClassVar[tuple[str, ...]] = MODES
    has_numpy_actor: ClassVar[bool] = False
    #: whether it makes sense for the algorithm that samplers explore to different degrees: not where the policy itself
    #: learns how much to explore
    has_noise_ladder: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_algorithm(cls, AsyncOffPolicyMixin, OffPolicyAlgorithm, "AsyncSAC(AsyncOffPolicyMixin, SAC)")

    def __init__(self, *args: Any, noise_ladder: str | None = None, learner: str = "auto", **kwargs: Any) -> None:
        self.noise_ladder, self.learner = noise_ladder, learner
        self._updates: Updater | None = None
        self._actor_spec: ActorSpec | None = None
        self._recorded: RecordedSteps | None = None
        self._is_replaying = False
        self._random_state: np.ndarray | None = None
        self._continuity = Continuity()
        #: gradient steps of this ``learn()``, and steps of the environments that they were made for
        self._n_gradient_steps = self._n_steps_trained = 0
        self._n_steps_before = self._n_trainings = 0
        self._travelling_hooks = HookIds()
        self._n_rollouts_until_look = 0
        super().__init__(*args, **kwargs)

    def _check_choices(self) -> None:
        super()._check_choices()
        check_learner(self.learner)
        if self.noise_ladder is None:
            return
        name = type(self).__name__
        if self.noise_ladder not in LADDERS:
            raise ValueError(f"noise_ladder must be one of {LADDERS} or None, got {self.noise_ladder!r}")
        if not self.has_noise_ladder:
            raise ValueError(
                f"noise_ladder={self.noise_ladder!r} makes samplers explore to different degrees, but the policy of "
                f"{name} learns how much to explore. Leave it out, or use it with AsyncDQN, AsyncDDPG or AsyncTD3."
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.collects_episodes and self.n_envs > 1:
            raise ValueError(
                f"You must use only one env when doing episodic training: train_freq={self.train_freq} was given with "
                f"{self.n_envs} environments. Count in steps instead, as in train_freq=(1, 'step')."
            )
        self._check_ladder()
        self._move_rewards()
        updates = self._learner()
        if self.learner == "compiled":
            if updates is None:
                raise ValueError(
                    f"learner='compiled' knows the updates of SB3's SAC, TD3, DDPG and DQN, and {type(self).__name__} "
                    "makes another one. Use learner='eager'."
                )
            updates.require()

    def _check_ladder(self) -> None:
        if self.noise_ladder is None:
            return
        if self.action_noise is not None:
            raise ValueError("noise_ladder brings noise of its own. Leave out one of noise_ladder and action_noise.")
        samplers = wrapped_samplers(self.env)
        if samplers is not None and samplers.samplers.n_samplers < 2:
            raise ValueError("noise_ladder has a rung for each sampler, of which it takes at least 2: there is only 1.")

    def _check_memory(self) -> None:
        check_memory(self)

    @property
    def collects_episodes(self) -> bool:
        """Whether ``train_freq`` counts episodes."""
        return self._frequency().unit == TrainFrequencyUnit.EPISODE

    def _n_steps_per_rollout(self) -> int:
        # Nobody knows how long an episode is going to be. Its steps are asked for one by one.
        return 1 if self.collects_episodes else self._frequency().frequency

    def _frequency(self) -> TrainFreq:
        # SB3 has converted what the user gave.
        return cast(TrainFreq, self.train_freq)

    def _set_up_collector(self, env: WrappedSamplers, n_steps: int) -> Collector:
        assert self.env is not None
        self._recorded = RecordedSteps(self.env)
        collector, self._actor_spec = set_up_collector(self, env, n_steps, self._samplers_seed)
        return collector

    def _collector_settings(self) -> tuple:
        if self._n_rollouts_until_look == 0:
            self._travelling_hooks = travelling_hooks(self.policy)
            self._n_rollouts_until_look = ROLLOUTS_PER_LOOK
        self._n_rollouts_until_look -= 1
        return (self.action_noise, self.noise_ladder, can_mark_cuts(self._buffer), self._travelling_hooks)

    def learn(
        self: SelfAsyncOffPolicy,
        total_timesteps: int = 1_000_000,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAsyncOffPolicy:
        """
        Train the policy.

        :param total_timesteps: number of environment steps, over all environments; the last rollout is completed
        :param callback: callback or list of callbacks, called at every step of all environments
        :param log_interval: episodes between two logs
        :param tb_log_name: name of the run for TensorBoard, by default that of the class
        :param reset_num_timesteps: whether to count from zero and begin new episodes, rather than to go on
        :param progress_bar: whether to show a progress bar
        :return: the trained model
        """
        name = type(self).__name__ if tb_log_name is None else tb_log_name
        return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        initialised = super()._init_callback(callback, progress_bar)
        if wants_all_infos(self._buffer):
            self._infos = select_infos(self.info_keys, callbacks_may_look=True)
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._n_gradient_steps = self._n_steps_trained = 0
        self._n_trainings += 1
        self._n_rollouts_until_look = 0
        result = super()._setup_learn(*args, **kwargs)
        # Once more: callbacks may change the policy when training starts.
        self._n_rollouts_until_look = 0
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
        """
        Fill the replay buffer from the experience queue.

        :param env: the training environment
        :param callback: called at every step of all environments, and at the rollout's beginning and end
        :param train_freq: how much to collect
        :param replay_buffer: the buffer to fill
        :param action_noise: noise that samplers have added to actions
        :param learning_starts: number of steps in which samplers have taken random actions
        :param log_interval: episodes between two logs
        :return: how much was collected, and whether to go on
        """
        arguments = (callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval)
        collector = self._up_to_date_collector(self._n_steps_per_rollout())
        self._n_steps_before = self.num_timesteps
        if collector is None:
            return super().collect_rollouts(env, *arguments)
        wrapped = wrapped_samplers(env)
        assert wrapped is not None and self._recorded is not None
        self._recorded.begin(self._recorded_steps(collector), WrapperState(wrapped))
        self._is_replaying = True
        try:
            result = super().collect_rollouts(self._recorded, *arguments)
        finally:
            self._is_replaying = False
            self._recorded.end()
        if self._random_state is not None:
            # Not before: where there is gSDE, SB3's loop has drawn noise that the sampler has drawn, too.
            set_global_state(self._random_state, self.action_space)
        self.policy_version += 1
        if self._collector is not collector:
            # A callback has set other environments.
            collector.interrupt()
        return result

    def _recorded_steps(self, collector: Collector) -> Iterator[RecordedStep]:
        """The steps of a rollout, and those after it as long as somebody asks for them."""
        assert self._actor_spec is not None
        # Now: where there is gSDE, SB3 goes on to draw the noise that samplers have to draw.
        weights = published_weights(self, self._actor_spec, collector.n_steps_ahead)
        return self._steps_collected_with(collector, weights)

    def _steps_collected_with(self, collector: Collector, weights: dict[str, np.ndarray]) -> Iterator[RecordedStep]:
        while True:
            for rollout, rows in collector.collect(self.policy_version, weights, self._n_rollouts_left()):
                self._random_state = rollout.random_state
                for index in rows:
                    yield RecordedStep(rollout, index)

    def _n_rollouts_left(self) -> int:
        """How many rollouts ``learn()`` is going to collect, the current one included."""
        n_left = math.ceil((self._total_timesteps - self.num_timesteps) / (self._n_steps_per_rollout() * self.n_envs))
        return max(n_left, 1)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self._is_replaying:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._recorded is not None
        actions = self._recorded.next_actions()
        self._last_obs = self._recorded.current.observations
        return actions

    def _excluded_save_params(self) -> list[str]:
        own = ["_actor_spec", "_recorded", "_is_replaying", "_random_state", "_continuity", "_n_steps_before"]
        return [
            *super()._excluded_save_params(),
            *own,
            "_n_gradient_steps",
            "_n_steps_trained",
            "_n_trainings",
            *_LOOKS,
        ]
