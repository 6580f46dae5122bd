"""PPO with asynchronous samplers."""

from contextlib import nullcontext
from typing import Any

from stable_baselines3.ppo import PPO

from sb3_walle.algorithm.several_learners import are_several
from sb3_walle.collection.modes import MODES
from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.updates.finite import finite_updates
from sb3_walle.updates.kl_penalty import REPORT, KLPenalty, check_objective, train_with_kl_penalty
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater


class AsyncPPO(AsyncOnPolicyMixin, PPO):
    """
    Proximal Policy Optimization (Schulman et al., 2017, https://arxiv.org/abs/1707.06347) as in SB3, with experience
    from N samplers (WALL-E, Xu et al., 2018).

    Takes the arguments of SB3's ``PPO``, and those of :class:`AsyncOnPolicyMixin`.
    In the modes ``"pipelined"`` and ``"free"`` it learns from what a slightly older policy did. There, the ratio in
    PPO's objective is one to the policy before the update, and advantages and returns are corrected by the ratio of
    that one to the policy that chose the actions; see
    :func:`~sb3_walle.on_policy.policy_lag.correct_for_policy_lag`.

    .. code-block:: python

        model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10)
        model.learn()
        model.save("half_cheetah")

    :param objective: ``"clip"`` as in SB3; or ``"kl_penalty"`` as in the WALL-E report, an adaptive penalty on the KL
        divergence of an update, which aims at ``target_kl`` (0.003 by default). Its update is always eager, and
        ``clip_range`` is of no effect; see :func:`~sb3_walle.updates.kl_penalty.train_with_kl_penalty`.
    :param preset: with ``objective="kl_penalty"``, whose numbers it has: ``"report"`` (default), or ``"batchppo"`` for
        those of Hafner et al. (2017), where ``target_kl`` is 0.01 by default
    :raises ValueError: if ``learner="compiled"`` is impossible, or there is no such objective or preset; and as
        :class:`AsyncOnPolicyMixin` says
    """

    supported_modes = MODES
    update_class = PPOUpdate

    def __init__(self, *args: Any, objective: str = "clip", preset: str | None = None, **kwargs: Any) -> None:
        self.objective, self.preset = objective, preset
        #: weight of the divergence in the loss, and what learning rates are multiplied with, if the objective has a
        #: penalty
        self.kl_coef = self.learning_rate_factor = 1.0
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        check_objective(self.objective, self.preset)
        if self.objective == "kl_penalty":
            self._check_kl_penalty()
        super()._setup_model()

    def _correct_for_policy_lag(self) -> float | None:
        # A buffer that was trained on before is flattened, and was prepared then.
        if self.rollout_buffer.generator_ready:
            return None
        return correct_for_policy_lag(self.rollout_buffer, self.policy, self.normalize_advantage)

    def _get_updater(self) -> Updater | None:
        return super()._get_updater() if self.objective == "clip" else None

    def _update_eagerly(self) -> None:
        if self.objective == "clip":
            super()._update_eagerly()
            return
        with finite_updates(self.policy, self.policy_version + 1) if self.check_nan else nullcontext():
            before = KLPenalty(self.kl_coef, self.learning_rate_factor)
            penalty = train_with_kl_penalty(self, before, self.preset or REPORT)
        self.kl_coef, self.learning_rate_factor = penalty.coef, penalty.learning_rate_factor

    def _check_kl_penalty(self) -> None:
        if self.learner == "compiled":
            raise ValueError("objective='kl_penalty' has no compiled update. Use learner='auto' or 'eager'.")
        if are_several(self.n_learners):
            raise ValueError(
                f"objective='kl_penalty' has no compiled update for n_learners={self.n_learners} to share. "
                "Use n_learners=1."
            )
        if not self._trains_as_sb3():
            raise ValueError(
                f"objective='kl_penalty' takes the place of SB3's PPO.train(), and {type(self).__name__} has one of "
                "its own. Use objective='clip', which leaves that to it."
            )
        if self.target_kl is not None and self.target_kl <= 0:
            raise ValueError(f"target_kl must be above 0 with objective='kl_penalty', got {self.target_kl}")
