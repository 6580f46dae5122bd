"""MaskablePPO with asynchronous samplers."""

from functools import partial
from typing import Any, TypeVar

import numpy as np
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.collection_request import CollectionRequest
from sb3_walle.collection.collector import Collector
from sb3_walle.collection.modes import MODES
from sb3_walle.collection.rollout import Rollout
from sb3_walle.on_policy import AsyncOnPolicyMixin
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.on_policy.rollout_buffer import add_rows
from sb3_walle.on_policy.rollout_size import minibatches_of_several, single_advantage_kept
from sb3_walle.on_policy.values import flattened
from sb3_walle.samplers.actors.action_masks import ACTION_MASKS
from sb3_walle.samplers.actors.choice import ActorKinds
from sb3_walle.samplers.actors.masked_numpy_export import export_masked_numpy_actor, export_without_masks
from sb3_walle.samplers.actors.masked_torch_actor import MaskedTorchActorSpec

SelfMaskablePPO = TypeVar("SelfMaskablePPO", bound="AsyncMaskablePPO")

_WITH_MASKS = ActorKinds(MaskedTorchActorSpec, export_masked_numpy_actor)
_WITHOUT_MASKS = ActorKinds(numpy=export_without_masks)


class AsyncMaskablePPO(AsyncOnPolicyMixin, MaskablePPO):
    """
    PPO with invalid action masking (Huang & Ontanon, 2020, https://arxiv.org/abs/2006.14171) as in sb3-contrib, with
    experience from N samplers.

    Takes the arguments of sb3-contrib's ``MaskablePPO``, and those of :class:`AsyncOnPolicyMixin`. Samplers ask their
    environments, or the ``ActionMasker`` around them, for ``action_masks()`` before every step. Its update is eager. In
    the modes with a policy lag it is corrected as :class:`~sb3_walle.AsyncPPO` is, with the masks that held.

    .. code-block:: python

        model = AsyncMaskablePPO("MlpPolicy", lambda: InvalidActionEnvDiscrete(dim=80, n_invalid_actions=60))
        model.learn()
    """

    supported_modes = MODES
    collects_as = MaskablePPO

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._use_masking = True
        super().__init__(*args, **kwargs)

    def learn(  # type: ignore[override]
        self: SelfMaskablePPO,
        total_timesteps: int = 1_000_000,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        use_masking: bool = True,
        progress_bar: bool = False,
    ) -> SelfMaskablePPO:
        """
        As in sb3-contrib. Samplers collect for as long as it runs.

        :param total_timesteps: number of environment steps, over all environments; the last rollout is completed
        :param callback: as in SB3
        :param log_interval: as in SB3
        :param tb_log_name: as in SB3, by default the name of the class
        :param reset_num_timesteps: as in SB3
        :param use_masking: whether samplers ask for masks; otherwise any action is taken
        :param progress_bar: as in SB3
        :return: the algorithm itself
        :raises ValueError: if an environment has no ``action_masks()``; and as :class:`AsyncOnPolicyMixin` says
        """
        # Samplers have to know when learn() begins.
        self._use_masking = use_masking
        name = type(self).__name__ if tb_log_name is None else tb_log_name
        return super().learn(
            total_timesteps, callback, log_interval, name, reset_num_timesteps, use_masking, progress_bar
        )

    def collect_rollouts(  # type: ignore[override]
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """As in sb3-contrib, but the steps come from the experience queue: samplers have made them."""
        self._use_masking = use_masking
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps, use_masking=use_masking)

    def _make_collector(self, request: CollectionRequest) -> Collector:
        if self._use_masking and not is_masking_supported(self.get_env()):  # type: ignore[arg-type]
            # The words of sb3-contrib.
            raise ValueError("Environment does not support action masking. Consider using ActionMasker wrapper")
        return super()._make_collector(request)

    def _collector_settings(self) -> tuple:
        return (*super()._collector_settings(), self._use_masking)

    def _actor_kinds(self) -> ActorKinds:
        return _WITH_MASKS if self._use_masking else _WITHOUT_MASKS

    def _step_locals(self, rollout: Rollout, step: int) -> dict[str, Any]:
        masks = rollout.fields.get(ACTION_MASKS)
        return {ACTION_MASKS: None if masks is None else masks[step]}

    def _add_rows(
        self,
        buffer: RolloutBuffer,
        rollout: Rollout,
        rows: range,
        rewards: np.ndarray,
        episode_starts: np.ndarray,
        values: np.ndarray,
    ) -> None:
        masks = rollout.fields.get(ACTION_MASKS)
        further = {} if masks is None else {ACTION_MASKS: masks[rows.start : rows.stop]}
        arguments = partial(self._step_locals, rollout)
        add_rows(buffer, rollout, rows, rewards, episode_starts, values, further, arguments)

    def _correct_for_policy_lag(self) -> float | None:
        # A buffer that was trained on before is flattened, and was prepared then.
        if self.rollout_buffer.generator_ready:
            return None
        return correct_for_policy_lag(self.rollout_buffer, self.policy, self.normalize_advantage, self._masks_of_rows)

    def _update_eagerly(self) -> None:
        # Whole episodes have any number of steps. sb3-contrib normalises a single advantage, too, which makes it NaN.
        batch_size, n_samples = self.batch_size, self.rollout_buffer.buffer_size * self.rollout_buffer.n_envs
        if batch_size is not None:
            self.batch_size = minibatches_of_several(n_samples, batch_size)
        try:
            with single_advantage_kept(self, n_samples):
                super()._update_eagerly()
        finally:
            self.batch_size = batch_size

    def _masks_of_rows(self, rows: range) -> dict[str, Any]:
        return {ACTION_MASKS: flattened(self.rollout_buffer.action_masks[rows.start : rows.stop], 2)}
