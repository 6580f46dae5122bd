"""The part of the mixin that trains."""

from contextlib import nullcontext
from time import perf_counter
from typing import ClassVar

from sb3_walle.algorithm.threads import torch_threads_beside
from sb3_walle.off_policy.stored_steps import StoredSteps
from sb3_walle.updates.finite import finite_steps
from sb3_walle.updates.off_policy_update import OffPolicyUpdate
from sb3_walle.updates.updater import Updater


class Updates(StoredSteps):
    """The part of :class:`~sb3_walle.AsyncOffPolicyMixin` that trains."""

    #: the update that can be compiled
    update_class: ClassVar[type[OffPolicyUpdate] | None] = None
    learner: str
    _updates: Updater | None
    _n_gradient_steps: int
    _n_steps_trained: int
    _n_steps_before: int

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Update the policy from the replay buffer, as in SB3.

        :param gradient_steps: number of gradient steps
        :param batch_size: size of each minibatch
        """
        n_samplers_at_work = 0 if self._collector is None else self._collector.n_samplers_at_work
        started = perf_counter()
        with torch_threads_beside(n_samplers_at_work):
            self._update(gradient_steps, batch_size)
        self._learn_seconds = perf_counter() - started
        self._n_gradient_steps += gradient_steps
        self._n_steps_trained += self.num_timesteps - self._n_steps_before
        self._n_steps_before = self.num_timesteps

    def _update(self, gradient_steps: int, batch_size: int) -> None:
        updates = self._learner()
        if updates is None or batch_size != self.batch_size:
            self._update_eagerly(gradient_steps, batch_size)
            return
        updates.update.expect(gradient_steps)
        updates.train(self.policy_version, lambda: self._update_eagerly(gradient_steps, batch_size))
        self.logger.record("async/compiled_update", int(updates.is_compiled))

    def _learner(self) -> Updater | None:
        """What makes compiled updates; None if there are none of this algorithm."""
        kind = self.update_class
        if kind is None or getattr(super().train, "__func__", None) is not kind.sb3_train:
            return None
        if self._updates is None:
            self._updates = Updater(kind(self), self.learner)
        return self._updates

    def _prepare_updates(self) -> None:
        updates = self._learner()
        if updates is None or self.gradient_steps == 0:
            return
        n_left = self._total_timesteps - max(self.num_timesteps, self.learning_starts)
        per_rollout = self._n_steps_per_rollout() * self.n_envs
        updates.update.expect(self.gradient_steps if self.gradient_steps > 0 else per_rollout)
        updates.plan(max(0, n_left) // per_rollout)

    def _update_eagerly(self, gradient_steps: int, batch_size: int) -> None:
        with finite_steps(self.policy, self._n_updates + 1) if self.check_nan else nullcontext():
            super().train(gradient_steps, batch_size)

    def dump_logs(self) -> None:
        """Write what SB3 logs, and how the samplers are doing."""
        self._record_collection()
        if self._n_steps_trained > 0:
            self.logger.record("async/replay_ratio", self._n_gradient_steps / self._n_steps_trained)
        super().dump_logs()

    def _abandon_updates(self) -> None:
        if self._updates is not None:
            self._updates.abandon()

    def __exit__(self, *exception: object) -> None:
        if self._updates is not None:
            self._updates.close()
        super().__exit__(*exception)
