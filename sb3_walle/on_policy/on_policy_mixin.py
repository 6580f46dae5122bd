"""The mixin: SB3's on-policy algorithm, fed from the experience queue."""

import inspect
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.async_mixin import AsyncMixin
from sb3_walle.algorithm.collection_request import CollectionRequest, CollectionSpec
from sb3_walle.algorithm.compatibility import check_algorithm
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.env_sources import EnvSource
from sb3_walle.envs.wrappers import wrapped_samplers
from sb3_walle.on_policy.advantages import compute_advantages
from sb3_walle.on_policy.on_policy_spec import on_policy_spec, published_weights
from sb3_walle.on_policy.rollout_buffer import add_rows, fit_size, keep_fractions, new_rollout_buffer
from sb3_walle.on_policy.rollout_choice import (
    EPISODES,
    ROLLOUTS,
    STEPS,
    check_rollout,
    check_samplers,
    minibatches_of_any_size,
    one_env_each,
)
from sb3_walle.on_policy.rollout_size import large_rollout_advice
from sb3_walle.on_policy.step_reporter import StepReporter
from sb3_walle.on_policy.values import (
    correct_cut_off,
    last_values,
    learner_episode_starts,
    learner_rewards,
    rollout_values,
)
from sb3_walle.samplers.actors.choice import ActorKinds
from sb3_walle.samplers.actors.torch_policy import hooks_for_samplers
from sb3_walle.saving import saved_value
from sb3_walle.sb3_private import timesteps_to_learn
from sb3_walle.updates.finite import finite_updates
from sb3_walle.updates.updater import Updater

# Stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = OnPolicyAlgorithm
else:
    _Base = object


class AsyncOnPolicyMixin(AsyncMixin, _Base):
    """
    Put before an on-policy algorithm of SB3, makes it collect experience with samplers.

    Samplers pull the policy, step their environments and send chunks of experience; the algorithm takes the chunks,
    fills its rollout buffer with them and trains as in SB3. All arguments of the algorithm keep their meaning and
    order; those for samplers are :class:`~sb3_walle.algorithm.async_mixin.AsyncMixin`'s.

    The modes other than ``"sync"`` have a policy lag. An algorithm that lists them among its ``supported_modes`` has to
    override :meth:`_correct_for_policy_lag`.

    :param rollout: what an iteration collects: ``"steps"``, as in SB3, ``n_steps`` of each environment; or
        ``"episodes"``, whole episodes, as many as have ``target_steps`` together if they are as long as those of the
        iteration before. Each sampler then has one environment, and ``n_steps`` is not given
    :param target_steps: with ``rollout="episodes"``, about how many steps an iteration collects, all samplers together
    :param max_episode_steps: with ``rollout="episodes"``, after how many steps an episode is truncated, by default
        ``target_steps`` where the environment has no limit of its own
    """

    #: what an iteration may collect
    supported_rollouts: ClassVar[tuple[str, ...]] = ROLLOUTS
    #: the class between SB3's and this one whose ``collect_rollouts()`` the subclass knows to stand in for
    collects_as: ClassVar[type[OnPolicyAlgorithm] | None] = None
    # What is older, no ratio of probabilities can put right.
    _default_max_policy_lag = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        base = cls.collects_as or OnPolicyAlgorithm
        check_algorithm(cls, AsyncOnPolicyMixin, base, "AsyncPPO(AsyncOnPolicyMixin, PPO)")

    def __init__(
        self,
        *args: Any,
        rollout: str = STEPS,
        target_steps: int | None = None,
        max_episode_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        #: largest policy lag in the rollout buffer
        self._rollout_policy_lag = 0
        self.rollout, self.target_steps, self.max_episode_steps = rollout, target_steps, max_episode_steps
        #: how long the episodes of the last rollout were on average, if it consisted of whole ones
        self.mean_episode_steps: float | None = None
        # What stands before AsyncMixin's own arguments are SB3's, in SB3's order.
        positional = inspect.signature(super(AsyncMixin, self).__init__).bind_partial(*args).arguments
        is_given = "n_steps" in kwargs or "n_steps" in positional
        if rollout == EPISODES:
            kwargs = one_env_each(positional, kwargs)
        with minibatches_of_any_size(rollout):
            super().__init__(*args, **kwargs)
        #: ``n_steps`` of an algorithm that was made without; a loaded one may have another
        self._default_n_steps = None if is_given or rollout == EPISODES else self.n_steps

    @classmethod
    def load(cls, path: Any, env: EnvSource = None, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`AsyncMixin.load`; with ``rollout="steps"``, what was saved of whole episodes is forgotten."""
        if "n_steps" in kwargs and kwargs.get("rollout", saved_value(path, "rollout")) == EPISODES:
            one_env_each({}, kwargs)  # refuses it, as in the constructor
        if kwargs.get("rollout") == STEPS:
            kwargs = {"target_steps": None, "max_episode_steps": None, **kwargs}
        return super().load(path, env, *args, **kwargs)

    def _check_choices(self) -> None:
        super()._check_choices()
        check_rollout(self)

    def _setup_model(self) -> None:
        self._check_choices()
        if self.env is not None and self.rollout == EPISODES:
            check_samplers(wrapped_samplers(self.env))
        self._note_target_steps()
        super()._setup_model()

    def _note_target_steps(self) -> None:
        """Set ``n_steps``, as far as it has a meaning where rollouts consist of whole episodes."""
        if self.target_steps is not None and self.n_envs:
            self.n_steps = math.ceil(self.target_steps / self.n_envs)

    def _collection_spec(self, request: CollectionRequest, for_size: bool = False) -> CollectionSpec:
        return on_policy_spec(self, request, for_size, self._actor_kinds())

    def _make_collector(self, request: CollectionRequest) -> Collector:
        collector = super()._make_collector(request)
        advice = large_rollout_advice(self, self._default_n_steps)
        if self.verbose >= 1 and advice is not None:
            print(advice)
        return collector

    def _actor_kinds(self) -> ActorKinds:
        """:return: the actors that can run the algorithm's policies"""
        return ActorKinds()

    def _collector_settings(self) -> tuple:
        return hooks_for_samplers(self.policy), self.rollout, self.max_episode_steps

    def _n_steps_per_rollout(self) -> int:
        return self.n_steps

    def _samples_per_step(self) -> float:
        return getattr(self, "n_epochs", 1)

    def _renew_buffer(self) -> None:
        self._note_target_steps()
        self.rollout_buffer = new_rollout_buffer(self)

    def _prepare_updates(self) -> None:
        updater = self._get_updater()
        if updater is not None:
            updater.plan(self._n_rollouts_left())

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        **kwargs: Any,
    ) -> bool:
        """
        As in SB3, but the steps come from the experience queue: samplers have made them.

        :param kwargs: what the algorithm's own takes beside, if there are no samplers
        """
        collector, wrapped = self._up_to_date_collector(n_rollout_steps), wrapped_samplers(env)
        if collector is None or wrapped is None:
            if self.rollout == EPISODES:
                check_samplers(wrapped)
            self._rollout_policy_lag = 0
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps, **kwargs)
        self.policy.set_training_mode(False)
        keep_fractions(rollout_buffer, wrapped.observation_space)
        rollout_buffer.reset()
        callback.on_rollout_start()
        reporter = StepReporter(self, env, callback, rollout_buffer, n_rollout_steps, wrapped, self._step_locals)
        collector.plan_rollouts(self._n_samples_per_rollout(), self.mean_episode_steps)
        weights = published_weights(self.policy, collector.weight_names)
        rollout: Rollout | None = None
        for shown, shown_rows in collector.collect(self.policy_version, weights, self._n_rollouts_left()):
            rollout, rows = shown.learned(shown_rows)
            fit_size(rollout_buffer, rollout)
            if rollout.random_state is not None:
                th.set_rng_state(th.from_numpy(rollout.random_state))
            with self._cpus_shared():
                row_values = rollout_values(self.policy, rollout, rows)
            if not reporter.report(shown, shown_rows, shown.shown(row_values)):
                return False
            with self._cpus_shared():
                correct_cut_off(self.policy, rollout, rows.start, self.gamma, rollout_buffer)
                rewards = learner_rewards(self.policy, rollout, rows, self.gamma)
            starts = learner_episode_starts(rollout, rows)
            self._add_rows(rollout_buffer, rollout, rows, rewards, starts, row_values)
        if rollout is None:
            raise RuntimeError("The collector has ended without a rollout")
        self._rollout_policy_lag = collector.statistics.policy_lag_max
        self.mean_episode_steps = collector.mean_episode_steps
        with self._cpus_shared():
            values, dones = last_values(self.policy, rollout), rollout.dones[-1]
        compute_advantages(rollout_buffer, values, dones)
        callback.update_locals({"values": values, "dones": dones})
        callback.on_rollout_end()
        if self._experience.collector is not collector:
            # A callback has set other environments.
            collector.interrupt()
        return True

    def _step_locals(self, rollout: Rollout, step: int) -> dict[str, Any]:
        """:return: local variables of the algorithm's own ``collect_rollouts()`` beyond SB3's, for callbacks"""
        return {}

    def _add_rows(
        self,
        buffer: RolloutBuffer,
        rollout: Rollout,
        rows: range,
        rewards: np.ndarray,
        episode_starts: np.ndarray,
        values: np.ndarray,
    ) -> None:
        """Add steps of a rollout to the buffer, see :func:`~sb3_walle.on_policy.rollout_buffer.add_rows`."""
        add_rows(buffer, rollout, rows, rewards, episode_starts, values)

    def train(self) -> None:
        """Update the policy from the rollout buffer, as in SB3."""
        with self._training():
            weight = self._correct_for_policy_lag() if self._rollout_policy_lag > 0 else 1.0
            if self.mode != "sync" and weight is not None:
                self.logger.record("async/importance_weight", weight)
            self._update()
        self.policy_version += 1

    def _update(self) -> None:
        updater = self._get_updater()
        if updater is None:
            self._update_eagerly()
        else:
            self._update_with(updater)
        if self.update_class is not None:
            self.logger.record("async/compiled_update", int(updater is not None and updater.is_compiled))

    def _update_with(self, updater: Updater) -> None:
        updater.train(self.policy_version + 1, self._update_eagerly)

    def _update_eagerly(self) -> None:
        with finite_updates(self.policy, self.policy_version + 1) if self.check_nan else nullcontext():
            super().train()

    def _correct_for_policy_lag(self) -> float | None:
        """
        Prepare the rollout buffer, which holds what older policies did, for the update. An algorithm that supports
        modes with a policy lag does here what its update does not do by itself.

        :return: how much a step counts on average, from 0 to 1; ``None`` if that is not known
        """
        return None

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what SB3 logs, and how the samplers are doing."""
        self._record_collection()
        super().dump_logs(iteration)

    def _n_rollouts_left(self) -> int:
        """How many rollouts ``learn()`` is going to collect, the current one included."""
        return math.ceil((timesteps_to_learn(self) - self.num_timesteps) / self._n_samples_per_rollout())

    def _n_samples_per_rollout(self) -> int:
        """How many steps a rollout has, all environments together; about as many if it consists of whole episodes."""
        return self.target_steps or self.n_steps * self.n_envs
