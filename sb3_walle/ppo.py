"""PPO with asynchronous samplers."""

from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar

from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.ppo import PPO

from sb3_walle.collection.modes import MODES
from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.updates.finite import finite_updates
from sb3_walle.updates.kl_penalty import KLPenalty, check_objective, train_with_kl_penalty
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater, check_learner

SelfAsyncPPO = TypeVar("SelfAsyncPPO", bound="AsyncPPO")


class AsyncPPO(AsyncOnPolicyMixin, PPO):
    """
    Proximal Policy Optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347) as in SB3, with experience
    from N samplers (WALL-E, Xu et al., 2018).

    Takes the arguments of SB3's ``PPO`` with the same meaning and order, and those of :class:`AsyncOnPolicyMixin`.
    In the modes ``"pipelined"`` and ``"free"`` it learns from what a slightly older policy did. There, the ratio in
    PPO's objective is one to the policy before the update, and advantages and returns are corrected by the ratio of
    that one to the policy that chose the actions; see
    :func:`~sb3_walle.on_policy.policy_lag.correct_for_policy_lag`.

    .. code-block:: python

        model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
        model.save("half_cheetah")

    :param args: arguments of :class:`AsyncOnPolicyMixin` and of SB3's ``PPO``
    :param learner: which update: ``"eager"``, SB3's own; ``"compiled"``, the same computation as machine code, several
        times faster, from the first update on, which waits for the compiler if need be; or ``"auto"``, which begins
        eagerly and goes on with the compiled update as soon as there is one, if there is enough left to do for that to
        pay. The two agree within rounding. So that the same seed always gives the same numbers, where there is a seed
        the arguments alone determine the number of the first compiled update, which waits for the compiler if need be.
    :param objective: ``"clip"`` as in SB3; or ``"kl_penalty"`` as in the WALL-E report, an adaptive penalty on the KL
        divergence of an update, which is to be ``target_kl`` (0.003 by default). Its update is always eager, and
        ``clip_range`` is of no effect; see :func:`~sb3_walle.updates.kl_penalty.train_with_kl_penalty`.
    :param kwargs: further arguments of :class:`AsyncOnPolicyMixin` and of SB3's ``PPO``
    :raises ValueError: if ``learner="compiled"`` is impossible, or there is no such objective, besides what
        :class:`AsyncOnPolicyMixin` raises
    """

    supported_modes: ClassVar[tuple[str, ...]] = MODES

    def __init__(self, *args: Any, learner: str = "auto", objective: str = "clip", **kwargs: Any) -> None:
        self.learner, self.objective = learner, objective
        #: weight of the divergence in the loss, and what learning rates are multiplied with, if the objective has a
        #: penalty
        self.kl_coef = self.learning_rate_factor = 1.0
        self._updates: Updater | None = None
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        check_learner(self.learner)
        check_objective(self.objective)
        super()._setup_model()
        if self.objective == "kl_penalty":
            self._check_kl_penalty()
        elif self.learner == "compiled":
            self._learner().require()

    def learn(
        self: SelfAsyncPPO,
        total_timesteps: int = 1_000_000,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "AsyncPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAsyncPPO:
        """
        Train the policy.

        :param total_timesteps: number of environment steps, over all environments; the last rollout is completed
        :param callback: callback or list of callbacks, called at every step of all environments
        :param log_interval: iterations between two logs
        :param tb_log_name: name of the run for TensorBoard
        :param reset_num_timesteps: whether to count from zero and begin new episodes, rather than to go on
        :param progress_bar: whether to show a progress bar
        :return: the trained model
        """
        arguments: dict[str, Any] = {
            "total_timesteps": total_timesteps,
            "callback": callback,
            "log_interval": log_interval,
            "tb_log_name": tb_log_name,
            "reset_num_timesteps": reset_num_timesteps,
            "progress_bar": progress_bar,
        }
        return super().learn(**arguments)

    def _correct_for_policy_lag(self) -> None:
        # A buffer that was trained on before is flattened, and was prepared then.
        if not self.rollout_buffer.generator_ready:
            correct_for_policy_lag(self.rollout_buffer, self.policy, self.normalize_advantage)

    def _check_kl_penalty(self) -> None:
        if self.learner == "compiled":
            raise ValueError("objective='kl_penalty' has no compiled update. Use learner='auto' or 'eager'.")
        if not self._trains_as_sb3():
            raise ValueError(
                f"objective='kl_penalty' takes the place of SB3's PPO.train(), and {type(self).__name__} has one of "
                "its own. Use objective='clip', which leaves that to it."
            )
        if self.target_kl is not None and self.target_kl <= 0:
            raise ValueError(f"target_kl must be above 0 with objective='kl_penalty', got {self.target_kl}")

    def _trains_as_sb3(self) -> bool:
        return getattr(super(AsyncOnPolicyMixin, self).train, "__func__", None) is PPOUpdate.sb3_train

    def _learner(self) -> Updater:
        if self._updates is None:
            is_sb3s = self._trains_as_sb3()
            if self.learner == "compiled" and not is_sb3s:
                raise ValueError(
                    f"learner='compiled' does what SB3's PPO.train() does, and {type(self).__name__} does something "
                    "else. Use learner='eager'."
                )
            self._updates = Updater(PPOUpdate(self), self.learner if is_sb3s else "eager")
        return self._updates

    def _plan_updates(self, n_updates: int) -> None:
        if self.objective == "clip":
            self._learner().plan(n_updates)

    def _update(self) -> None:
        if self.objective == "kl_penalty":
            self._update_with_kl_penalty()
            return
        updates = self._learner()
        updates.train(self.policy_version + 1, super()._update)
        self.logger.record("async/compiled_update", int(updates.is_compiled))

    def _update_with_kl_penalty(self) -> None:
        with finite_updates(self.policy, self.policy_version + 1) if self.check_nan else nullcontext():
            penalty = train_with_kl_penalty(self, KLPenalty(self.kl_coef, self.learning_rate_factor))
        self.kl_coef, self.learning_rate_factor = penalty.coef, penalty.learning_rate_factor
        self.logger.record("async/compiled_update", 0)

    def _abandon_updates(self) -> None:
        if self._updates is not None:
            self._updates.abandon()

    def __exit__(self, *exception: object) -> None:
        if self._updates is not None:
            self._updates.close()
        super().__exit__(*exception)
