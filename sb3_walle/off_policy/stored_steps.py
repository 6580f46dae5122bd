"""The part of the mixin that has to do with the replay buffer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle.algorithm.mixin import AsyncMixin
from sb3_walle.off_policy.cuts import cut_off, make_room
from sb3_walle.off_policy.hindsight import LearnersRewards, with_learners_rewards
from sb3_walle.off_policy.recorded_steps import RecordedSteps
from sb3_walle.off_policy.storage import Continuity, check_n_envs, new_replay_buffer

# Stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = OffPolicyAlgorithm
else:
    _Base = object


class StoredSteps(AsyncMixin, _Base):
    """The part of :class:`~sb3_walle.AsyncOffPolicyMixin` that has to do with the replay buffer."""

    _recorded: RecordedSteps | None
    _is_replaying: bool
    _continuity: Continuity

    @property
    def _buffer(self) -> ReplayBuffer | None:
        """The replay buffer; ``None`` also after ``del model.replay_buffer``, which frees memory for another one."""
        return getattr(self, "replay_buffer", None)

    def _check_n_envs(self, n_envs: int) -> None:
        buffer = self._buffer
        if buffer is not None and (buffer.full or buffer.pos > 0):
            check_n_envs(buffer, n_envs)

    def _renew_buffer(self) -> None:
        self.replay_buffer = new_replay_buffer(self)
        self._continuity.forget()
        self._move_rewards()

    def _set_env(self, env: VecEnv | None, force_reset: bool) -> None:
        super()._set_env(env, force_reset)
        self._move_rewards()

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """
        As in SB3.

        :param path: where it was saved
        :param truncate_last_traj: as in SB3, of a ``HerReplayBuffer``
        :raises ValueError: if it holds the experience of another number of environments
        """
        before = self._buffer
        super().load_replay_buffer(path, truncate_last_traj)
        assert self.replay_buffer is not None
        try:
            check_n_envs(self.replay_buffer, self.n_envs)
        except ValueError:
            self.replay_buffer = before
            raise
        self._continuity.forget()
        self._move_rewards()

    def _move_rewards(self) -> None:
        """Have rewards of goals that are chosen in hindsight computed in this process."""
        self._close_rewards()
        buffer = self._buffer
        if isinstance(buffer, HerReplayBuffer) and self.env is not None:
            buffer.env = with_learners_rewards(self.env)

    def _close_rewards(self) -> None:
        rewards = getattr(self._buffer, "env", None)
        if isinstance(rewards, LearnersRewards):
            rewards.close_own()

    def __exit__(self, *exception: object) -> None:
        self._close_rewards()
        super().__exit__(*exception)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if not self._is_replaying:
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            return
        assert self._recorded is not None
        step = self._recorded.current
        broken = self._continuity.broken(step)
        if broken.any():
            cut_off(replay_buffer, broken)
        make_room(replay_buffer)
        originals = step.original_next_observations
        with self._without_vec_normalize():
            self._last_obs = step.original_observations
            super()._store_transition(
                replay_buffer,
                buffer_action,
                originals,
                step.original_rewards,
                dones,
                step.with_original_terminal_observations(infos),
            )
        self._last_obs, self._last_original_obs = new_obs, originals
        self._continuity.note(step)

    @contextmanager
    def _without_vec_normalize(self) -> Iterator[None]:
        """
        The samplers have recorded the original observations and rewards. ``VecNormalize`` could only give them back
        from the normalised ones, with statistics that have changed since.
        """
        vec_normalize, self._vec_normalize_env = self._vec_normalize_env, None
        try:
            yield
        finally:
            self._vec_normalize_env = vec_normalize
