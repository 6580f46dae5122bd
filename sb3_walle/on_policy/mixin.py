"""The mixin: SB3's algorithm, fed from the experience queue."""

import io
import math
import pathlib
import warnings
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import check_mode
from sb3_walle.collection.rollout import Rollout
from sb3_walle.env_sources import EnvSource, to_samplers
from sb3_walle.on_policy.buffer import add_rows
from sb3_walle.on_policy.infos import wants_all_infos
from sb3_walle.on_policy.replay import StepReplay
from sb3_walle.on_policy.setup import policy_weights, set_up_collector
from sb3_walle.on_policy.threads import torch_threads_beside
from sb3_walle.on_policy.values import last_values, learner_episode_starts, learner_rewards, rollout_values
from sb3_walle.samplers.actors.choice import check_actor, choose_actor
from sb3_walle.vec_env import SamplerVecEnv

# The mixin stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = OnPolicyAlgorithm
else:
    _Base = object


class AsyncOnPolicyMixin(_Base):
    """
    Put before an on-policy algorithm of SB3, makes it collect experience with samplers.

    Samplers pull the policy, step their environments and send chunks of experience; the algorithm takes the chunks,
    fills its rollout buffer with them and trains as ever. All arguments of the algorithm keep their meaning and order;
    ``n_envs`` is ``n_samplers * envs_per_sampler``.

    :param policy: as in SB3
    :param env: an env id, a function that builds an environment, an environment, a :class:`SamplerVecEnv`, or a
        ``DummyVecEnv`` whose environments can be moved. Any other ``VecEnv`` trains as in SB3, without samplers.
    :param args: the algorithm's other arguments
    :param n_samplers: number of samplers, by default one for each CPU that this process may use
    :param envs_per_sampler: environments of each sampler, stepped one after the other with one forward pass for all
    :param mode: ``"pipelined"``: samplers collect a rollout while the learner trains on the one before (policy lag 1,
        reproducible); ``"sync"``: they wait for each update (lag 0, SB3's own algorithm); ``"free"``: first come, first
        served, so that slow samplers hold nobody up
    :param max_policy_lag: in mode ``"free"``, how many updates the policy that chose an action may be behind when the
        action is learned from, by default 1
    :param actor: what runs the policy in samplers: ``"torch"``, ``"numpy"`` (MLP policies, several times faster), or
        ``"auto"`` for NumPy wherever it computes the same distribution
    :param backend: where samplers live: ``"process"``, or ``"inline"`` for this process
    :param kwargs: the algorithm's other arguments
    :raises ValueError: if one of these arguments is wrong
    :raises SamplerError: if an environment cannot be built in a sampler
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: EnvSource,
        *args: Any,
        n_samplers: int | None = None,
        envs_per_sampler: int = 1,
        mode: str = "pipelined",
        max_policy_lag: int | None = None,
        actor: str = "auto",
        backend: str = "process",
        **kwargs: Any,
    ) -> None:
        check_mode(mode, max_policy_lag)
        check_actor(actor)
        self.mode, self.max_policy_lag, self.actor = mode, max_policy_lag, actor
        #: number of completed ``train()`` calls
        self.policy_version = 0
        self._collector: Collector | None = None
        self._collector_key: tuple | None = None
        self._samplers_seed: int | None = None
        self._all_infos = False
        self._learn_seconds: float | None = None
        numpy_is_likely = policy == "MlpPolicy" and actor != "torch" and not kwargs.get("use_sde")
        preload = () if numpy_is_likely else ("torch", "stable_baselines3")
        samplers = to_samplers(env, n_samplers, envs_per_sampler, backend, preload)
        try:
            super().__init__(policy, samplers, *args, **kwargs)  # type: ignore[arg-type]
        except BaseException:
            if samplers is not None and samplers is not env:
                samplers.close()
            raise
        _warn_of_wrapper(self.env)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: EnvSource = None,
        *args: Any,
        n_samplers: int | None = None,
        envs_per_sampler: int = 1,
        backend: str = "process",
        **kwargs: Any,
    ) -> Any:
        """
        Load a model that was saved by this algorithm, or by SB3's own.

        :param path: where it was saved
        :param env: environments to go on training with, as for the constructor
        :param args: SB3's other arguments
        :param n_samplers: as for the constructor
        :param envs_per_sampler: as for the constructor
        :param backend: as for the constructor
        :param kwargs: SB3's other arguments; whatever is left replaces what was saved, e.g. ``mode="sync"``
        :return: the model
        """
        if kwargs.get("mode", "free") != "free":
            # The bound that was saved belongs to the mode that was saved.
            kwargs.setdefault("max_policy_lag", None)
        samplers = to_samplers(env, n_samplers, envs_per_sampler, backend)
        try:
            model = super().load(path, samplers, *args, **kwargs)
            check_mode(model.mode, model.max_policy_lag)
            check_actor(model.actor)
            return model
        except BaseException:
            if samplers is not None and samplers is not env:
                samplers.close()
            raise

    def set_env(self, env: EnvSource, force_reset: bool = True) -> None:
        """
        Go on with other environments, as many as before.

        :param env: as for the constructor
        :param force_reset: as in SB3
        """
        n_samplers, envs_per_sampler, backend = self.n_envs, 1, "process"
        if isinstance(self.env, SamplerVecEnv):
            n_samplers, envs_per_sampler, backend = self.env.n_samplers, self.env.envs_per_sampler, self.env.backend
        if isinstance(env, VecEnv):
            samplers = to_samplers(env, backend=backend)
        else:
            samplers = to_samplers(env, n_samplers, envs_per_sampler, backend)
        try:
            super().set_env(samplers, force_reset)  # type: ignore[arg-type]
        except BaseException:
            if samplers is not None and samplers is not env:
                samplers.close()
            raise
        _warn_of_wrapper(self.env)

    def _setup_model(self) -> None:
        super()._setup_model()
        choose_actor(self.actor, self.policy)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_collector", "_collector_key"]

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed everything that SB3 seeds, and the samplers' random streams.

        :param seed: the seed
        """
        super().set_random_seed(seed)
        self._samplers_seed = seed
        self._collector_key = None

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        with warnings.catch_warnings():
            # EvalCallback warns of any difference in type. Where the environments live is none that matters.
            same = "Training and eval env are not of the same type.*SamplerVecEnv.* != .*(DummyVecEnv|SubprocVecEnv)"
            warnings.filterwarnings("ignore", message=same)
            initialised = super()._init_callback(callback, progress_bar)
        self._all_infos = wants_all_infos(initialised)
        return initialised

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        collector = self._up_to_date_collector(self.n_steps)
        if collector is not None:
            collector.start_run()
        # Preparing the samplers is not part of what time/fps measures.
        self.start_time = time_ns()
        return result

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """
        As in SB3. Samplers collect for as long as it runs.

        :param args: SB3's arguments
        :param kwargs: SB3's arguments
        :return: the algorithm itself
        """
        try:
            return super().learn(*args, **kwargs)
        finally:
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
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        replay = StepReplay(self, env, callback, rollout_buffer, n_rollout_steps)
        weights = policy_weights(self.policy, collector.weight_names)
        rollout: Rollout | None = None
        for rollout, rows in collector.collect(self.policy_version, weights, self._n_rollouts_left(), self._all_infos):
            with torch_threads_beside(collector.n_samplers_at_work):
                values = rollout_values(self.policy, rollout, rows)
            if not replay.replay(rollout, rows, values):
                return False
            rewards = learner_rewards(self.policy, rollout, rows, self.gamma)
            add_rows(rollout_buffer, rollout, rows, rewards, learner_episode_starts(rollout, rows), values)
        assert rollout is not None
        self._finish(rollout, rollout_buffer, callback)
        return True

    def train(self) -> None:
        """Update the policy from the rollout buffer, as in SB3."""
        n_samplers_at_work = 0 if self._collector is None else self._collector.n_samplers_at_work
        started = perf_counter()
        with torch_threads_beside(n_samplers_at_work):
            super().train()
        self.policy_version += 1
        self._learn_seconds = perf_counter() - started

    def dump_logs(self, iteration: int = 0) -> None:
        """
        Write what SB3 logs, and how the samplers are doing.

        :param iteration: number of the iteration
        """
        if self._collector is not None:
            statistics = self._collector.statistics
            self.logger.record("time/collect_seconds", statistics.collect_seconds)
            self.logger.record("time/wait_seconds", statistics.wait_seconds)
            self.logger.record("async/policy_lag_mean", statistics.policy_lag_mean)
            self.logger.record("async/policy_lag_max", statistics.policy_lag_max)
            self.logger.record("async/sampler_steps_per_second", statistics.sampler_steps_per_second)
            self.logger.record("async/queue_fill", statistics.queue_fill)
            if self.mode == "free":
                self.logger.record("async/stale_steps", statistics.n_stale_steps)
        if self._learn_seconds is not None:
            self.logger.record("time/learn_seconds", self._learn_seconds)
        super().dump_logs(iteration)

    def _finish(self, rollout: Rollout, rollout_buffer: RolloutBuffer, callback: BaseCallback) -> None:
        """The end of SB3's ``collect_rollouts()``."""
        values, dones = last_values(self.policy, rollout), rollout.dones[-1]
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals({"values": values, "dones": dones})
        callback.on_rollout_end()

    def _n_rollouts_left(self) -> int:
        """How many rollouts ``learn()`` is going to collect, the current one included."""
        return math.ceil((self._total_timesteps - self.num_timesteps) / (self.n_steps * self.n_envs))

    def _up_to_date_collector(self, n_steps: int) -> Collector | None:
        """The collector, made anew if something that it depends on has changed; None if there are no samplers."""
        env = self.env
        if not isinstance(env, SamplerVecEnv):
            self._collector = self._collector_key = None
            return None
        key = (env, self.policy, n_steps, self.mode, self.max_policy_lag, self.actor)
        if self._collector is None or self._collector_key != key or env.collector is not self._collector:
            self._collector = set_up_collector(self, env, n_steps, self._samplers_seed)
            self._collector_key = key
            env.collector = self._collector
            self._collector.start_run()
        return self._collector


def _warn_of_wrapper(env: VecEnv | None) -> None:
    if env is not None and not isinstance(env, SamplerVecEnv) and isinstance(env.unwrapped, SamplerVecEnv):
        warnings.warn(
            f"The samplers are wrapped in a {type(env).__name__}, which steps them in lockstep: training goes on as in "
            "SB3, without asynchronous collection. Wrap the environments inside the functions that build them instead.",
            stacklevel=3,
        )
