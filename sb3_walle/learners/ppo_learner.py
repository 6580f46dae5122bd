"""The updates of PPO, compiled where that pays."""

from collections.abc import Hashable
from typing import Any, ClassVar

from stable_baselines3.ppo import PPO

from sb3_walle.learners.compilation import Compilation, Compiled
from sb3_walle.learners.learner import Learner
from sb3_walle.learners.ppo_trace import TracedStep, minibatch_size, trace_ppo, what_decides
from sb3_walle.learners.ppo_update import PPOUpdate


class PPOLearner(Learner):
    """
    Updates the policy of PPO.

    :param algorithm: the algorithm
    :param choice: what the user asked for, one of :data:`~sb3_walle.learners.learner.LEARNERS`
    """

    eager_seconds: ClassVar[float] = 1e-3
    sb3_train: ClassVar[Any] = PPO.train

    def _what_decides(self) -> Hashable:
        return what_decides(self._algorithm)

    def _compile(self) -> Compilation[TracedStep]:
        return Compilation(trace_ppo(self._algorithm))

    def _update(self, compiled: Compiled[TracedStep], number: int, is_compared: bool) -> int:
        check_nan = getattr(self._algorithm, "check_nan", False)
        traced, program = compiled
        update = PPOUpdate(self._algorithm, traced.step, program, traced.batch_size, check_nan, is_compared)
        update.train(number)
        return update.n_minibatches

    def _minibatches_per_update(self) -> int:
        return self._algorithm.n_epochs * self._minibatches_per_epoch()

    def _n_minibatches_made(self) -> int:
        # Epochs, of which target_kl may have left some out.
        return self._algorithm._n_updates * self._minibatches_per_epoch()

    def _minibatches_per_epoch(self) -> int:
        buffer = self._algorithm.rollout_buffer
        return -(-buffer.buffer_size * buffer.n_envs // minibatch_size(self._algorithm))
